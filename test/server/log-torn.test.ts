// Every log of the server: a line that a full disk cut short does not affect the next one, lengths
// are logged as they were announced, and times of triggers in the zone of the site.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, chownSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { parseCommandLogLine, parseLogLine } from 'webjob-protocol';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { giveAway, prepareSite } from '../support/hooks-site.ts';
import { fillBytes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { findWebUser } from '../support/tree.ts';
import { formatHead } from '../support/wire-request.ts';

const LOGS = ['nph-webjob.log', 'nph-webjob-hook.log', 'nph-webjob-trigger.log', 'nph-webjob.json.log'] as const;
const COMMANDS = {
  GetHookEnable: 'Y',
  GetHookCommandLine: 'echo made',
  GetTriggerEnable: 'Y',
  GetTriggerCommandLine: 'true',
  EnableRequestTracking: 'Y',
};

let site: Site;
beforeEach(() => {
  site = makeSite();
  prepareSite(site);
});
afterEach(() => site.remove());

const logOf = (name: string): string => join(site.base, 'logfiles', name);
const linesOf = (name: string): string[] => readFileSync(logOf(name), 'latin1').split('\n');

async function ask(
  head = formatHead('GET', {}),
  environment: [string, string][] = [],
  within: string[] = [],
): Promise<string> {
  const options = { settingsFile: site.propertiesFile, user: findWebUser(), environment, within, timeLimitSeconds: 60 };
  const { stdout, stderr } = await runBare(Buffer.from(head, 'latin1'), options);
  return `${stdout.toString('latin1').split('\r\n')[0]}\n${stderr}`;
}

/** A trigger writes its log lines at any time. */
async function settle(name: string, lines: number): Promise<void> {
  for (let tries = 0; linesOf(name).length < lines && tries < 500; tries++)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

describe('a truncated log line', () => {
  for (const torn of ['2004-05-23 16:32:06 server_1_10853551', '{"time":"2004', '\xff\0', 'x'.repeat(70_000)])
    it(`is ended by the next writer of each log: ${torn.slice(0, 40)}`, async () => {
      configure(site, COMMANDS);
      for (const name of LOGS) writeFileSync(logOf(name), `whole\n${torn}`, 'latin1');
      assert.match(await ask(), /^HTTP\/1\.1 200 /);
      await settle('nph-webjob-trigger.log', 5);
      for (const name of LOGS) {
        const [first, second, third = '', ...more] = linesOf(name);
        assert.deepEqual([first, second], ['whole', torn], name);
        if (name === 'nph-webjob.log') assert.equal(parseLogLine(third).status, 200);
        else if (name === 'nph-webjob.json.log') assert.equal(JSON.parse(third).status, 200);
        else assert.ok(parseCommandLogLine(third), name);
        assert.equal(more.at(-1), '', `${name} ends in a newline`);
        assert.ok(!more.slice(0, -1).includes(''), `${name} has no empty line`);
      }
    });

  it('does not exist in a new log, an empty one, or one that ends well', async () => {
    configure(site, COMMANDS);
    for (const prepare of [
      () => rmSync(logOf('nph-webjob.log')),
      () => writeFileSync(logOf('nph-webjob.log'), ''),
      () => {},
    ]) {
      prepare();
      giveAway(join(site.base, 'logfiles'));
      const before = prepare.length;
      await ask();
      assert.ok(!linesOf('nph-webjob.log').slice(0, -1).includes(''), String(before));
    }
    assert.equal(linesOf('nph-webjob.log').length, 3);
  });

  it('is ended with the same write that adds the new line', {
    skip: spawnSync('strace', ['-V']).error && 'no strace',
  }, async () => {
    configure(site, {});
    appendFileSync(site.logFile, 'torn');
    const trace = join(site.root, 'scratch', 'trace');
    const wrapper = ['strace', '-f', '-y', '-e', 'trace=write,pwrite64', '-o', trace, '-P', site.logFile];
    const options = { settingsFile: site.propertiesFile, user: findWebUser(), wrapper, timeLimitSeconds: 60 };
    await runBare(Buffer.from(formatHead('GET', {})), options);
    const writes = readFileSync(trace, 'latin1')
      .split('\n')
      .filter((line) => / p?write(?:64)?\(/.test(line));
    assert.equal(writes.length, 1, writes.join('\n'));
    assert.match(writes[0] ?? '', /"\\n20/);
  });

  it('is not completed later, after the line of another process', { skip: findMountObstacle() }, async () => {
    const small = join(site.base, 'small');
    mkdirSync(small);
    mountTmpfs(small, 'size=64k');
    try {
      giveAway(small);
      configure(site, { LogfilesDirectory: small, EnableCustody: 'N' });
      // Space for half a line.
      writeFileSync(join(small, 'nph-webjob.log'), `${'x'.repeat(4096 * 15 + 4046)}\n`);
      giveAway(join(small, 'nph-webjob.log'));
      fillBytes(join(small, 'filler'));
      assert.match(await ask(), /200 [\s\S]*nph-webjob\.log: (?:truncated|ENOSPC): .* 200 -- Success/);
      rmSync(join(small, 'filler'), { force: true });
      writeFileSync(join(small, 'nph-webjob.log'), readFileSync(join(small, 'nph-webjob.log'), 'latin1').slice(-60));
      assert.match(await ask(), /^HTTP\/1\.1 200 /);
      const lines = readFileSync(join(small, 'nph-webjob.log'), 'latin1').trimEnd().split('\n');
      assert.equal(parseLogLine(lines.at(-1) ?? '').status, 200);
    } finally {
      unmountTmpfs(small);
    }
  });
});

describe('a log that the web user may write and not read', { skip: findWebUser() === undefined && 'not root' }, () => {
  it('gets its lines all the same', async () => {
    configure(site, COMMANDS);
    for (const name of LOGS) {
      writeFileSync(logOf(name), 'whole\n');
      chownSync(logOf(name), 0, 0);
      chmodSync(logOf(name), 0o622);
    }
    assert.match(await ask(), /^HTTP\/1\.1 200 OK\n$/);
    await settle('nph-webjob-trigger.log', 4);
    for (const name of LOGS) assert.ok(linesOf(name).length > 2, `${name}: ${linesOf(name)}`);
  });
});

/** Runs a command where Calcutta is the zone of the machine. */
const IN_CALCUTTA = [
  ...['unshare', '-m', 'sh', '-c'],
  'mount --bind /usr/share/zoneinfo/Asia/Kolkata /etc/localtime && exec "$0" "$@"',
];
const CALCUTTA_MINUTES = 330;
const CANNOT_MOVE = spawnSync('unshare', [...IN_CALCUTTA.slice(1), 'true']).status !== 0 && 'no zone of its own';

describe('the trigger log', { skip: CANNOT_MOVE }, () => {
  it('is in GMT with UseGMT=Y, and in local time without', async () => {
    for (const [UseGMT, minutes] of [['Y', 0] as const, ['N', CALCUTTA_MINUTES] as const]) {
      configure(site, { ...COMMANDS, UseGMT });
      writeFileSync(logOf('nph-webjob-trigger.log'), '');
      const before = Date.now() - 1000;
      assert.match(await ask(undefined, [], IN_CALCUTTA), /^HTTP\/1\.1 200 /);
      await settle('nph-webjob-trigger.log', 3);
      const lines = linesOf('nph-webjob-trigger.log').slice(0, -1);
      assert.equal(lines.length, 2);
      for (const line of lines) {
        const at = Date.parse(`${line.slice(0, 19).replace(' ', 'T')}Z`) - minutes * 60_000;
        assert.ok(at >= before && at <= Date.now(), `UseGMT=${UseGMT}: ${line}`);
      }
    }
  });
});

describe("httpd's error log", { skip: findWebUser() === undefined && 'not root' }, () => {
  it('gets no terminal sequence, whatever the name of a directory', async () => {
    const folder = join(site.base, 'logs\u009b2J');
    mkdirSync(folder);
    configure(site, { LogfilesDirectory: folder });
    const answer = await ask(`${formatHead('PUT', { out: 'out', env: 'env\n' })}outenv\n`);
    assert.match(answer, /no custody record is kept: \S+logs\\u009b2J\/nph-webjob-custody/);
    assert.doesNotMatch(answer, /[^\x20-\x7e\n]/);
  });
});

describe('Content-Length', () => {
  for (const digits of [
    '9007199254740993',
    '99999999999999999999',
    '12345678901234567890',
    '0007',
    '007',
    '00',
    '0',
    '7',
    '00000000000000000007',
  ])
    it(`is logged as it was sent: ${digits}`, async () => {
      configure(site, { EnableRequestTracking: 'Y', CapContentLength: 'N' });
      const fields = `RUNTYPE=snapshot&STDOUT_LENGTH=${digits}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
      const query = `VERSION=webjob&SYSTEM=a&CLIENTID=client1&FILENAME=host.sh&${fields}`;
      const authorization = `Authorization: Basic ${btoa('client1:foo')}`;
      await ask(
        `PUT /webjob/nph-webjob.cgi?${query} HTTP/1.1\r\n${authorization}\r\nContent-Length: ${digits}\r\n\r\n`,
      );
      assert.equal(linesOf('nph-webjob.log')[0]?.split(' ')[8], digits);
      const track = linesOf('nph-webjob.json.log')[0] ?? '';
      const { bytesReceived, bytesOut } = JSON.parse(track);
      for (const value of [bytesReceived, bytesOut]) assert.equal(String(value), digits, track);
      assert.equal(typeof bytesReceived, /^(?:0|[1-9]\d{0,14})$/.test(digits) ? 'number' : 'string');
    });

  it('is logged as missing when it is invalid', async () => {
    configure(site, {});
    for (const length of ['', '-1', '1e3', '0x10', '1'.repeat(21)]) await ask(undefined, [['CONTENT_LENGTH', length]]);
    for (const line of linesOf('nph-webjob.log').slice(0, -1)) assert.match(line, / host\.sh - 0 \d+ 454 -- /);
  });
});
