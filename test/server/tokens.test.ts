// Tokens and the formats that contain them: the value of each, that no value can carry a path or a
// shell command, and which formats are not a name for an upload.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { expandTokens, NAME_FORMAT_PATTERN, TOKENS, type TokenFacts } from '../../cgi/tokens.ts';
import { hostileText, jobId } from '../support/arbitraries.ts';

const ARTICLE: TokenFacts = {
  clientId: 'client1',
  fileName: 'host.sh',
  jobId: 'server_1_1085355126_00723',
  pid: 723,
  serverId: 'server_1',
  remoteAddress: '192.168.1.120',
  at: new Date('2004-05-23T23:32:06.789Z'),
  useGmt: true,
};

/** The value of every token in the article's request. */
const EXPANDED: Record<string, string> = {
  cid: 'client1',
  cmd: 'host.sh',
  jid: 'server_1_1085355126_00723',
  pid: '00723',
  sid: 'server_1',
  ip: '192.168.1.120',
  ipv4: '192.168.1.120',
  Y: '2004',
  y: '04',
  m: '05',
  d: '23',
  H: '23',
  M: '32',
  S: '06',
  s: '1085355126',
  j: '144',
  '%': '%',
};

const isNameFormat = (format: string): boolean => new RegExp(`^(?:${NAME_FORMAT_PATTERN})$`).test(format);

/**
 * Characters that are ordinary neither in a path nor in a shell; a percent sign is the escape of a
 * value.
 */
const HARMLESS = /^[A-Za-z0-9_.:+@=,/%-]*$/;

describe('tokens', () => {
  it('expand to their documented values', () => {
    for (const [token, value] of Object.entries(EXPANDED))
      assert.equal(expandTokens(`%${token}`, ARTICLE), value, token);
  });

  it('are all tested here, or occur only in commands', () => {
    const ofCommands = ['rdy', 'out', 'err', 'env', 'file'];
    const tried = TOKENS.filter((token) => !ofCommands.includes(token));
    assert.deepEqual(tried.sort(), Object.keys(EXPANDED).sort());
  });

  it('form the names of the default format', () => {
    assert.equal(expandTokens('%cid_%Y%m%d%H%M%S_%pid_%cmd', ARTICLE), 'client1_20040523233206_00723_host.sh');
  });

  it('are read at their longest, and once', () => {
    assert.equal(expandTokens('%sid-%s-%S%ip%ipv4', ARTICLE), 'server_1-1085355126-06192.168.1.120192.168.1.120');
    assert.equal(expandTokens('%%cid%%%cid', ARTICLE), '%cid%client1');
    assert.equal(expandTokens('%cid', { ...ARTICLE, clientId: '%cmd' }), '%25cmd');
    assert.equal(expandTokens('%cidcid%m%md', ARTICLE), 'client1cid0505d');
  });

  it('give the time in the requested zone', () => {
    const local = new Date(2024, 11, 31, 1, 2, 3);
    const facts = { ...ARTICLE, at: local, useGmt: false };
    assert.equal(expandTokens('%Y-%y-%m-%d %H:%M:%S %j', facts), '2024-24-12-31 01:02:03 366');
  });

  it('pad a pid to five digits and no further', () => {
    assert.equal(expandTokens('%pid', { ...ARTICLE, pid: 1 }), '00001');
    assert.equal(expandTokens('%pid', { ...ARTICLE, pid: 4194304 }), '4194304');
  });

  it('encode every character of a hostile value outside its documented set', () => {
    const expand = (hostile: string): string => expandTokens('%jid', { ...ARTICLE, jobId: hostile });
    assert.equal(expand('../../etc/passwd'), '..%2f..%2fetc%2fpasswd');
    assert.equal(expand('$(id)`id`;|&<>'), '%24%28id%29%60id%60%3b%7c%26%3c%3e');
    assert.equal(expand('"\'\\!#*?[]{}~^%=,@'), '%22%27%5c%21%23%2a%3f%5b%5d%7b%7d%7e%5e%25%3d%2c%40');
    assert.equal(expand('%2e%2e%2f'), '%252e%252e%252f');
    assert.equal(expand('Az_.:+-09'), 'Az_.:+-09');
  });

  it('expand, whatever their values, to nothing that a path or a shell interprets', () => {
    const facts = fc.record({
      clientId: hostileText,
      fileName: hostileText,
      serverId: hostileText,
      remoteAddress: hostileText,
      jobId: fc.oneof(jobId, hostileText),
    });
    fc.assert(
      fc.property(facts, fc.constantFrom('cid', 'cmd', 'jid', 'sid', 'ip', 'ipv4'), (given, token) => {
        const expanded = expandTokens(`%${token}`, { ...ARTICLE, ...given });
        assert.match(expanded, HARMLESS);
        assert.ok(!expanded.includes('/'));
      }),
      { numRuns: 1000 },
    );
  });

  it('tell any two job ids apart', () => {
    // Few characters, those of an escape: ids that could be confused.
    const id = fc.stringMatching(/^[%25f/]{1,4}$/);
    fc.assert(
      fc.property(id, id, (one, other) => {
        const [first, second] = [one, other].map((text) => expandTokens('%jid', { ...ARTICLE, jobId: text }));
        assert.equal(first === second, one === other);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a name format', () => {
  it('is a relative path of tokens and harmless characters', () => {
    const good = [
      '%cid',
      'a',
      '%cid/%Y/%m/%cmd',
      '%cid_%Y%m%d%H%M%S_%pid_%cmd',
      '%%',
      'a/.b/c.',
      'a/...',
      '.%jid',
      '%jid/..a',
    ];
    for (const format of [...good, 'A-z_0:9+@=,', '%ip/%ipv4/%sid/%s/%j/%y']) assert.ok(isNameFormat(format), format);
  });

  it('cannot lead out of the directory', () => {
    const outside = [
      '..',
      '.',
      '../a',
      './a',
      'a/..',
      'a/.',
      'a/../b',
      'a/./b',
      '/a',
      '/',
      '//',
      'a//b',
      'a/',
      '%cid/../%cmd',
    ];
    for (const format of [...outside, '%cid/..', '../%cid', '/%cid', '%cid//%cmd'])
      assert.ok(!isNameFormat(format), format);
  });

  it('contains no metacharacter, control character or unknown token', () => {
    for (const character of ' \t\n\r\0!"#$&\'()*;<>?[\\]^`{|}~\x7f\xe4\u2028\u{1f600}') {
      assert.ok(!isNameFormat(`a${character}b`), JSON.stringify(character));
      assert.ok(!isNameFormat(character), JSON.stringify(character));
    }
    for (const format of ['', '%', '%x', '%cid%', 'a%', '%-d', '%{cid}', '%rdy', '%file', '%2e%2e', '%CID']) {
      assert.ok(!isNameFormat(format), format);
    }
  });

  it('expands to a path below the directory, except with a job id of dots', () => {
    const part = fc.oneof(
      fc.constantFrom(...Object.keys(EXPANDED).map((token) => `%${token}`), '.', '..', '/', '/../', '_', '%'),
      fc.stringMatching(/^[A-Za-z0-9_.:+@=,/-]{1,5}$/),
      hostileText,
    );
    const format = fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join(''));
    let allowed = 0;
    fc.assert(
      fc.property(format, fc.oneof(jobId, fc.constantFrom('.', '..', '...', '/', '../')), (text, id) => {
        if (!isNameFormat(text)) return;
        allowed++;
        const name = expandTokens(text, { ...ARTICLE, jobId: id });
        assert.match(name, HARMLESS);
        const segments = name.split('/');
        assert.ok(!segments.includes(''), 'neither absolute nor with an empty segment');
        // put.ts refuses these; only an id of dots can make one.
        if (segments.some((segment) => /^\.{1,2}$/.test(segment))) assert.match(id, /^\.{1,2}$/);
      }),
      { numRuns: 5000 },
    );
    assert.ok(allowed > 500, `${allowed} formats were allowed`);
  });
});
