// hosts.access: the addresses that a list allows, compared with an independent computation;
// malformed lines, which the error must name; and that under httpd the address is the connection's,
// whatever a client says.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { isListed as isInList, parseHostList, readHostList } from '../../cgi/hosts.ts';
import { hostileText } from '../support/arbitraries.ts';
import { readLines, startCommandSite } from '../support/hooks-site.ts';

/** An address as a number of 128 bits; IPv4 is mapped as in RFC 4291, section 2.5.5.2. */
interface Address {
  value: bigint;
  isV4: boolean;
}

const V4_PREFIX = 0xffffn << 32n;
const isMapped = (value: bigint): boolean => value >> 32n === 0xffffn;

function formatV4(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
}

/** Eight groups, or `::` for the zeros at `from` to `to`. */
function formatV6(value: bigint, from: number, to: number, isUpper: boolean): string {
  const groups = Array.from({ length: 8 }, (_, index) => ((value >> BigInt(112 - 16 * index)) & 0xffffn).toString(16));
  const cut = groups.slice(from, to);
  const text =
    cut.length > 0 && cut.every((group) => group === '0')
      ? `${groups.slice(0, from).join(':')}::${groups.slice(to).join(':')}`
      : groups.join(':');
  return isUpper ? text.toUpperCase() : text;
}

const v4 = fc
  .bigInt({ min: 0n, max: 2n ** 32n - 1n })
  .map((value): Address => ({ value: V4_PREFIX | value, isV4: true }));
const v6 = fc
  .oneof(
    fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }),
    fc.bigInt({ min: 0n, max: 2n ** 20n }),
    fc.bigInt({ min: 0n, max: 2n ** 32n }).map((low) => V4_PREFIX + low),
  )
  .map((value): Address => ({ value, isV4: false }));
const address = fc.oneof(v4, v6);
const spelling = fc.record({ from: fc.nat(7), length: fc.nat(8), isUpper: fc.boolean() });

function spell({ value, isV4 }: Address, how: { from: number; length: number; isUpper: boolean }): string {
  return isV4
    ? formatV4(value & 0xffff_ffffn)
    : formatV6(value, how.from, Math.min(8, how.from + how.length), how.isUpper);
}

/** A network, and an address that is often near its edge: equal except for one bit. */
const trial = fc
  .record({
    network: address,
    bits: fc.nat(128),
    flip: fc.option(fc.nat(127)),
    other: address,
    how: spelling,
    whose: spelling,
  })
  .map(({ network, bits, flip, other, how, whose }) => {
    const width = network.isV4 ? 32 : 128;
    const length = bits % (width + 1);
    const peer = flip === null ? other : { ...network, value: network.value ^ (1n << BigInt(flip % width)) };
    const shift = BigInt(width - length);
    const isInside = network.value >> shift === peer.value >> shift && (!network.isV4 || isMapped(peer.value));
    return { line: `${spell(network, how)}/${length}`, peer: spell(peer, whose), isInside };
  });

/**
 * The answer of a CGI process, which looks for one client, and of a persistent worker, which caches
 * the whole list. Throws when both must.
 */
function isListed(text: string, clientId: string, peer: string): boolean {
  const answers = [clientId, undefined].map((only) => {
    try {
      return isInList(parseHostList(text, only), clientId, peer);
    } catch (error) {
      assert.ok(error instanceof SyntaxError, String(error));
      return error;
    }
  });
  assert.deepEqual(answers[0], answers[1], JSON.stringify(text));
  if (answers[0] instanceof Error) throw answers[0];
  return answers[0] === true;
}

/** Lines of this many other clients, of all kinds. */
const manyLines = (count: number): string =>
  Array.from({ length: count }, (_, index) => {
    const network = index % 3 === 0 ? `2001:db8:${(index & 0xffff).toString(16)}::/48` : `10.0.${index & 255}.0/24`;
    return `client_${index} = ${network}, 192.0.2.${index & 255}${index % 5 === 0 ? ' # office\r' : ''}\n`;
  }).join('');

describe('a long host list', () => {
  it('is skipped in a fraction of the time that reading it takes', () => {
    const text = Buffer.from(`${manyLines(50_000)}client1=192.0.2.1\n`).toString();
    const [own, all] = ['client1', undefined].map((only) => {
      const before = process.cpuUsage();
      assert.ok(isInList(parseHostList(text, only), 'client1', '192.0.2.1'));
      const { user, system } = process.cpuUsage(before);
      return user + system;
    });
    assert.ok(Number(own) * 4 < Number(all), `${own} of ${all} microseconds`);
  });

  it("is checked as strictly for other clients' lines as for the client's own", () => {
    const part = fc.constantFrom(
      ...'0 1 9 25 255 256 01 f 2001 ffff 12345 : :: . / /8 /33 /128 /129 /08 , # = \t \r'.split(' '),
      ' ',
    );
    let taken = 0;
    const judge = (line: string, only: string | undefined): boolean => {
      try {
        isInList(parseHostList(`${line}\n`, only), 'client1', '192.0.2.1');
        return true;
      } catch (error) {
        assert.ok(error instanceof SyntaxError, String(error));
        return false;
      }
    };
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 16 }).map((parts) => parts.join('')),
        (text) => {
          const isRight = judge(`client1=${text}`, undefined);
          taken += Number(isRight);
          assert.equal(judge(`client2=${text}`, 'client1'), isRight, JSON.stringify(text));
          assert.equal(judge(`client1=${text}`, 'client1'), isRight, JSON.stringify(text));
        },
      ),
      {
        numRuns: 20_000,
        examples: [['1::2:3:4:5:6:7:8'], ['::2:3:4:5:6:7:8'], ['1:2:3:4:5:6:7::'], ['::/0'], ['1::2::3']].map(
          ([text]) => [text ?? ''],
        ) as [string][],
      },
    );
    assert.ok(taken > 50, `${taken} were right`);
  });

  it('is kept by a persistent worker until the file changes in any way', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'webjob-hosts-')), 'hosts.access');
    after(() => rmSync(dirname(path), { recursive: true }));
    const write = (address: string): void => {
      writeFileSync(path, `client1=${address}\nclient2=192.0.2.9\n`);
      utimesSync(path, 1e9, 1e9);
    };
    const read = () => readHostList(path, 'client1');
    write('192.0.2.1');
    assert.notEqual(read(), read(), 'it may change once more within the same tick of the clock');
    assert.notEqual(read(), read());
    await sleep(2_100);
    read();
    const list = read();
    assert.equal(read(), list);
    assert.ok(isInList(readHostList(path, 'client2'), 'client2', '192.0.2.9'));
    write('192.0.2.2');
    assert.ok(isInList(read(), 'client1', '192.0.2.2'), 'the same size and time of modification');
    writeFileSync(path, 'client1');
    assert.throws(read, SyntaxError);
    rmSync(path);
    assert.throws(read, { code: 'ENOENT' });
  });
});

describe('a host list', () => {
  it('admits addresses in one of its networks, and nothing else', () => {
    let inside = 0;
    fc.assert(
      fc.property(trial, ({ line, peer, isInside }) => {
        inside += Number(isInside);
        assert.equal(isListed(`client1=${line}\n`, 'client1', peer), isInside, `${peer} in ${line}`);
      }),
      { numRuns: 5000 },
    );
    assert.ok(inside > 500 && inside < 4500, `${inside} were inside`);
  });

  it('combines the networks and the lines of a client, and uses none of another', () => {
    const own = fc.record({
      id: fc.constantFrom('client1', 'Client1', 'client', 'client11', '1'),
      of: fc.array(trial, { minLength: 1, maxLength: 3 }),
    });
    fc.assert(
      fc.property(fc.array(own, { maxLength: 4 }), trial, (lines, { peer }) => {
        const text = lines
          .map(({ id, of }) => ` ${id}\t= ${of.map(({ line }) => line).join(' ,\t')} # who\r\n`)
          .join('\n#\n');
        const each = lines
          .filter(({ id }) => id === 'client1')
          .flatMap(({ of }) => of.map(({ line }) => isListed(`client1=${line}`, 'client1', peer)));
        assert.equal(isListed(text, 'client1', peer), each.includes(true));
      }),
      { numRuns: 1000 },
    );
  });

  it('reads a single address as a network of its own', () => {
    fc.assert(
      fc.property(address, spelling, fc.nat(31), (one, how, flip) => {
        const text = `client1=${spell(one, how)}`;
        assert.ok(isListed(text, 'client1', spell(one, how)));
        const neighbour = { ...one, value: one.value ^ (1n << BigInt(flip)) };
        assert.ok(!isListed(text, 'client1', spell(neighbour, how)));
      }),
      { numRuns: 500 },
    );
  });

  it('accepts an IPv4 peer in IPv6 notation, and one with a zone', () => {
    for (const peer of ['::ffff:192.0.2.7', '::FFFF:192.0.2.7', '::ffff:c000:207', '192.0.2.7'])
      assert.ok(isListed('client1=192.0.2.0/24', 'client1', peer), peer);
    for (const zone of ['eth0', '1', 'br_lan.1'])
      assert.ok(isListed('client1=fe80::/10', 'client1', `fe80::1%${zone}`), zone);
    assert.ok(
      !isListed('client1=192.0.2.0/24', 'client1', '::192.0.2.7'),
      'the old, compatible spelling is another address',
    );
  });

  it('admits no peer that is not an address', () => {
    const everything = 'client1=0.0.0.0/0,::/0';
    for (const peer of [
      '',
      'localhost',
      '127.1',
      '0x7f.0.0.1',
      '127.0.0.1 ',
      '127.0.0.1,127.0.0.1',
      '127.0.0.1:80',
      '[::1]',
      '%',
      '::1::',
      '1.2.3.04',
    ])
      assert.equal(isListed(everything, 'client1', peer), false, peer);
    fc.assert(
      fc.property(hostileText, (peer) => {
        fc.pre(isIP(peer.split('%')[0] ?? '') === 0);
        assert.equal(isListed(everything, 'client1', peer), false);
      }),
    );
  });

  it('is empty without networks', () => {
    for (const text of ['', '\n', '# client1=0.0.0.0/0', '\r\n \t\n#\n', '\ufeff'])
      assert.equal(isListed(text, 'client1', '127.0.0.1'), false);
  });

  it('names the first malformed line, whichever client it is for', () => {
    const bad = [
      'client1',
      '=',
      'client1=',
      '=127.0.0.1',
      'client1=127.0.0.1;127.0.0.2',
      'client1=127.0.0.1 127.0.0.2',
      'client1 client2=::1',
    ];
    const worse = [
      'client1=1.2.3.4/-1',
      'client1=1.2.3.4/1.5',
      'client1=1.2.3.4/0x8',
      'client1=1.2.3.4/ 8',
      'client1=1.2.3/8',
      'client1=1.2.3.4.5',
      'client1=010.0.0.1',
    ];
    const worst = [
      'client1=::/',
      'client1=:::',
      'client1=1::2::3',
      'client1=fe80::1%eth0',
      'client1=[::1]',
      'client1=12345::',
      'client1=,::1',
      'client1=*',
      'client1=any',
      'cl/ent=::1',
      `${'x'.repeat(65)}=::1`,
      '\0',
    ];
    for (const line of [...bad, ...worse, ...worst]) {
      const text = `# 1\nclient1=127.0.0.1\n\n${line}\nbad too\n`;
      for (const id of ['client1', 'client2'])
        assert.throws(() => isListed(text, id, '127.0.0.1'), { name: 'SyntaxError', message: /^line 4 / }, line);
    }
  });

  it('is either correct or refused as a whole, whatever it contains', () => {
    fc.assert(
      fc.property(hostileText, (text) => {
        try {
          assert.equal(isListed(text, 'client1', '127.0.0.1'), false);
        } catch (error) {
          assert.ok(error instanceof SyntaxError);
        }
      }),
    );
  });
});

for (const way of ['prefork', 'worker'] as const) {
  describe(`a host list under ${way}`, async () => {
    const its = await startCommandSite(way === 'worker' ? way : { mpm: way });
    after(its.close);
    beforeEach(its.reset);
    const list = join(its.site.base, 'config/nph-webjob/hosts.access');
    mkdirSync(join(list, '..'), { recursive: true });

    it('checks the connection, not what a client claims', async () => {
      its.configure({ EnableHostAccessList: 'Y' });
      const forwarded = [
        'X-Forwarded-For',
        'X-Real-IP',
        'Client-IP',
        'X-Client-IP',
        'True-Client-IP',
        'Remote-Addr',
        'Remote_Addr',
        'CF-Connecting-IP',
      ];
      const headers = [
        ...forwarded.map((name) => `${name}: 192.0.2.1`),
        'Forwarded: for=192.0.2.1',
        'Host: 192.0.2.1',
      ].slice(0, -1);
      writeFileSync(list, 'client1=192.0.2.1\n');
      for (const ask of [{ headers }, { headers: headers.map((line) => line.toUpperCase()) }]) {
        assert.equal((await its.get(ask)).status, 472);
        assert.equal((await its.put({ ...ask, jobId: 'a', out: 'out' })).status, 472);
      }
      writeFileSync(list, 'client1=127.0.0.1\n');
      assert.equal((await its.get({ headers })).status, 200);
      for (const line of readLines(its.site.logFile)) assert.match(line, / 127\.0\.0\.1 /);
    });

    it('is named in the log with the malformed line, and admits nobody', async () => {
      its.configure({ EnableHostAccessList: 'Y' });
      writeFileSync(list, 'client1=127.0.0.1\nclient2=$(id)\n');
      assert.equal((await its.get()).status, 550);
      const [line = ''] = readLines(its.site.logFile);
      assert.match(line, / 550 -- Internal Server Initialization Error: hosts\.access: line 2 is not clientid=CIDR$/);
    });
  });
}
