// The output of a hook arrives as through a pipe, however the hook opens its stdout and stderr,
// with every shell as /bin/sh; and it is served completely, with its own signature or none, or not
// at all.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, realpathSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { type BareOptions, runBare } from '../support/bare.ts';
import { giveAway, prepareSite, readLines } from '../support/hooks-site.ts';
import { fillBytes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { parseAnswer, type StrictAnswer } from '../support/strict-client.ts';
import { findWebUser, readFiles } from '../support/tree.ts';
import { formatHead, type Put } from '../support/wire-request.ts';

const PROGRAM = '#!/bin/sh\nhostname\n';
/** More than a pipe holds. */
const LONG = 'yes 0123456789abcde | head -c 1600000';

let site: Site;
let spool: string;
before(() => {
  site = makeSite();
  ({ spool } = prepareSite(site));
});
after(() => site.remove());
afterEach(() => assert.deepEqual(readdirSync(spool), [], 'nothing is left in the spool folder'));

async function ask(method: 'GET' | 'PUT', put: Put = {}, more: Partial<BareOptions> = {}): Promise<StrictAnswer> {
  const body = method === 'PUT' ? [put.out, put.err, put.env].map((text) => text ?? '').join('') : '';
  const options = { settingsFile: site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60, ...more };
  const { stdout } = await runBare(Buffer.from(formatHead(method, put) + body, 'latin1'), options);
  return parseAnswer(stdout);
}

function useGetHook(command: string, more: Record<string, string> = {}): void {
  configure(site, { GetHookEnable: 'Y', GetHookCommandLine: command, ...more });
}

/** Every shell that /bin/sh can be here, with the command that makes it so for one process. */
const SHELLS = ['dash', 'busybox', 'bash'].flatMap((name) => {
  const { stdout } = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' });
  return stdout === '' ? [] : [{ name, path: realpathSync(stdout.trim()) }];
});
const CANNOT_UNSHARE = spawnSync('unshare', ['-m', 'true']).status === 0 ? false : 'no mount namespace of its own';

function asShell(path: string): Partial<BareOptions> {
  const shell = realpathSync('/bin/sh');
  if (path === shell) return {};
  const script = `mount --bind ${path} ${shell} && exec "$@"`;
  return {
    within: [
      'unshare',
      '-m',
      spawnSync('sh', ['-c', 'command -v bash']).status === 0 ? 'bash' : 'sh',
      '-c',
      script,
      'sh',
    ],
    user: undefined,
  };
}

const OUTPUTS: [command: string, stdout: string][] = [
  ['cat %file', PROGRAM],
  ['cat %file > /dev/stdout', PROGRAM],
  ['cat %file >> /dev/stdout', PROGRAM],
  ['cat %file > /dev/fd/1', PROGRAM],
  ['cat %file | tee /dev/null > /dev/stdout', PROGRAM],
  ['echo a; echo b > /dev/stdout; echo c', 'a\nb\nc\n'],
  ['echo a; echo b >> /dev/stdout; echo c', 'a\nb\nc\n'],
  ['echo a; (echo b > /dev/stdout); sh -c "echo c > /dev/stdout"; echo d', 'a\nb\nc\nd\n'],
  ['echo a; : > /dev/stdout', 'a\n'],
  ['echo a; dd if=/dev/null of=/dev/stdout 2> /dev/null; echo b', 'a\nb\n'],
  ['echo a; echo no > /dev/stderr; echo no >&2; echo b', 'a\nb\n'],
  ['printf a; printf "\\000\\377" > /dev/stdout; printf b', 'a\0\xffb'],
  ['true', ''],
  [`${LONG} > /dev/stdout; echo end`, `${'0123456789abcde\n'.repeat(100_000)}end\n`],
  ['(sleep 90; echo late) & echo now', 'now\n'],
  ['nohup sh -c "sleep 90; echo late" 2> /dev/null & echo now', 'now\n'],
  ['setsid sleep 90 & echo now', 'now\n'],
  ['exec cat %file', PROGRAM],
  ['exec > /dev/stdout; cat %file', PROGRAM],
];

for (const { name, path } of SHELLS) {
  const isOther = path !== realpathSync('/bin/sh');
  describe(`a hook with ${name} as /bin/sh`, { skip: isOther && CANNOT_UNSHARE }, () => {
    const shell = asShell(path);

    for (const [command, stdout] of OUTPUTS)
      it(`serves what a pipe would have carried: ${command}`, async () => {
        useGetHook(command);
        // Its background processes are not waited for, which would take longer than the time limit.
        const { status, body } = await ask('GET', {}, shell);
        assert.equal(status, 200);
        assert.equal(body.toString('latin1'), stdout);
      });

    it('logs what was written to stderr in any way, in order', async () => {
      writeFileSync(join(site.base, 'logfiles/nph-webjob-hook.log'), '');
      const command = 'echo one >&2; echo two > /dev/stderr; echo three 2>> /dev/stderr >&2; echo four >> /dev/stderr';
      useGetHook(`${command}; echo out`, { GetHookLogDivertedOutput: 'Y' });
      assert.equal((await ask('GET', {}, shell)).body.toString(), 'out\n');
      const told = readLines(join(site.base, 'logfiles/nph-webjob-hook.log')).map((line) =>
        line.replace(/^.* -- /, ''),
      );
      assert.deepEqual(told, ['one', 'two', 'three', 'four', 'Success']);
    });

    it('logs both streams of a PutHook', async () => {
      writeFileSync(join(site.base, 'logfiles/nph-webjob-hook.log'), '');
      const command = 'echo a; echo b > /dev/stdout; echo c >&2; echo d > /dev/stderr';
      const settings = { PutHookEnable: 'Y', PutHookCommandLine: command, PutHookLogDivertedOutput: 'Y' };
      configure(site, { ...settings, PutNameFormat: `puthook_${name}` });
      assert.equal((await ask('PUT', { jobId: 'a', out: 'out' }, shell)).status, 200);
      const told = readLines(join(site.base, 'logfiles/nph-webjob-hook.log')).map((line) =>
        line.replace(/^.* (?=\w+ -- )/, ''),
      );
      assert.deepEqual(told, ['out -- a', 'out -- b', 'err -- c', 'err -- d', '0 -- Success']);
    });

    for (const [command, message] of [
      ['echo partial; exit 3', 'exited with 3 instead of 0'],
      ['echo partial; kill -9 $$', 'was ended by SIGKILL'],
      ["echo partial; sh -c 'kill -15 $$'; exit $?", 'was ended by SIGTERM'],
      ['echo partial; nosuchcommand', 'exited with 127 instead of 0'],
      [LONG, 'printed more than GetHookOutputLimit'],
      ['yes', 'printed more than GetHookOutputLimit'],
      ['head -c 1000001 /dev/zero > /dev/stdout', 'printed more than GetHookOutputLimit'],
      ['echo partial; sleep 60', 'took longer than 2 seconds'],
    ] as const)
      it(`serves nothing when it fails: ${command}`, async () => {
        const GetHookTimeLimit = message.startsWith('took longer') ? '2' : '60';
        useGetHook(command, { GetHookOutputLimit: '1000000', GetHookTimeLimit });
        const { status, body } = await ask('GET', {}, shell);
        assert.deepEqual([status, body.length], [551, 0]);
        assert.ok(
          readLines(site.logFile).at(-1)?.endsWith(` 551 -- Hook Failed: GetHook ${message}`),
          readLines(site.logFile).at(-1),
        );
      });

    it('serves as much as GetHookOutputLimit, to the byte', async () => {
      useGetHook('head -c 1000000 /dev/zero', { GetHookOutputLimit: '1000000' });
      assert.equal((await ask('GET', {}, shell)).body.length, 1_000_000);
      useGetHook('exit 7', { GetHookStatus: '7' });
      assert.equal((await ask('GET', {}, shell)).status, 200);
    });
  });
}

describe('a full disk below SpoolDirectory', { skip: findMountObstacle() }, () => {
  for (const command of [LONG, `${LONG} || true`, `{ ${LONG}; } 2> /dev/null; exit 0`, `trap "" PIPE; ${LONG}; exit 0`])
    it(`causes a failure, never a truncated program: ${command}`, async () => {
      const small = join(site.base, 'small');
      mkdirSync(small);
      mountTmpfs(small, 'size=1m');
      try {
        giveAway(small);
        // A failure that waits for the time limit comes too late for httpd.
        useGetHook(command, { SpoolDirectory: small, GetHookTimeLimit: '600' });
        const { status, body } = await ask('GET');
        assert.deepEqual([status, body.length], [551, 0]);
        fillBytes(join(small, 'filler'));
        assert.equal((await ask('GET')).status, 551);
        rmSync(join(small, 'filler'));
        assert.deepEqual(readdirSync(small), []);
      } finally {
        unmountTmpfs(small);
        rmSync(small, { recursive: true });
      }
    });
});

describe('a value of dots alone in a command', () => {
  for (const jobId of ['.', '..', '...', '....'])
    it(`is not used as a directory: Job-Id ${jobId}`, async () => {
      const evidence = join(site.root, 'scratch', 'evidence');
      const encoded = '%2e'.repeat(jobId.length);
      for (const folder of [evidence, join(evidence, encoded)]) mkdirSync(folder, { recursive: true });
      giveAway(join(evidence, encoded));
      const command = `cp %out ${evidence}/%jid/stdout`;
      configure(site, { PutHookEnable: 'Y', PutHookCommandLine: command, PutNameFormat: `dots_${jobId.length}` });
      assert.equal((await ask('PUT', { jobId, out: 'out' })).status, 200);
      assert.deepEqual([...readFiles(evidence)], [[`${encoded}/stdout`, 'out']]);
      rmSync(evidence, { recursive: true });
    });
});

describe('a command whose upload would have too long a name', () => {
  it('is refused before anything runs, and served where no uploads are accepted', async () => {
    const ran = join(site.incoming, 'ran');
    const hook = { GetHookEnable: 'Y', GetHookCommandLine: `echo > ${ran}; echo made` };
    for (const [length, EnablePutService, PutNameFormat, status] of [
      [253, 'Y', '%cid_%cmd', 450],
      [251, 'Y', '%cmd', 200],
      [252, 'Y', '%cmd', 450],
      [253, 'Y', '%cid/%cmd', 450],
      [253, 'N', '%cid_%cmd', 200],
      [224, 'Y', '%cid_%Y%m%d%H%M%S_%pid_%cmd', 450],
      [215, 'Y', '%cid_%Y%m%d%H%M%S_%pid_%cmd', 200],
      [253, 'Y', '%cid_%pid', 200],
    ] as const) {
      configure(site, { ...hook, EnablePutService, PutNameFormat });
      const { status: found, body } = await ask('GET', { fileName: 'n'.repeat(length) });
      assert.deepEqual(
        [found, body.toString()],
        [status, status === 200 ? 'made\n' : ''],
        `${length} ${PutNameFormat}`,
      );
      assert.equal(readFiles(site.incoming).has('ran'), status === 200);
      rmSync(ran, { force: true });
    }
  });

  it('is refused by the PUT with 450 before its body is stored, for any too long part', async () => {
    for (const [put, more] of [
      [{ fileName: 'n'.repeat(252), jobId: 'a' }, { PutNameFormat: '%cmd' }],
      [{ jobId: 'j'.repeat(252) }, { PutNameFormat: '%jid' }],
      [{ jobId: '/'.repeat(86) }, { PutNameFormat: '%jid/%cmd' }],
      [{ jobId: 'j'.repeat(243) }, { PutNameFormat: '%jid', OverwriteExistingFiles: 'Y' }],
      [{ jobId: 'j'.repeat(255) }, { PutNameFormat: Array.from({ length: 17 }, () => '%jid').join('/') }],
    ] as [Put, Record<string, string>][]) {
      const before = [...readFiles(site.incoming)];
      configure(site, more);
      assert.equal((await ask('PUT', { out: 'out', ...put })).status, 450, JSON.stringify(more));
      assert.deepEqual([...readFiles(site.incoming)], before);
    }
  });
});

describe('the signature of GetHook output', () => {
  const header = (answer: StrictAnswer): string | undefined => answer.headers.get('webjob-payload-signature');
  before(() => addCommand(site, 'client1', 'host.sh.sig', 'c3RvcmVk\n'));
  after(() => rmSync(join(site.profiles, 'client1/host.sh.sig')));

  it('is not that of the stored file', async () => {
    configure(site, {});
    assert.equal(header(await ask('GET')), 'c3RvcmVk');
    for (const command of ['cat %file', 'echo other', 'cat %file; true %sig']) {
      useGetHook(command);
      const answer = await ask('GET');
      assert.deepEqual([answer.status, header(answer)], [200, undefined], command);
    }
  });

  it('is read only from a file, and leftovers of a hook or a killed request are removed', async () => {
    const old = ['hook-1-2.sig', 'hook-3-4', 'hook-5-6.sig'].map((name) => join(spool, name));
    for (const path of old) writeFileSync(path, '');
    for (const path of old.slice(0, 2)) utimesSync(path, new Date(), new Date(Date.now() - 3_700_000));
    for (const name of ['other', 'hook-x.sig', 'hook-1-2.sig.txt']) {
      writeFileSync(join(spool, name), '');
      utimesSync(join(spool, name), new Date(), new Date(0));
    }
    for (const command of [
      'rm %sig; mkdir -p %sig/a/b; echo x > %sig/a/c',
      'rm %sig; mkfifo %sig',
      'rm %sig; ln -s /dev/zero %sig',
      'rm %sig; ln -s %sig %sig',
      'rm %sig; ln -s / %sig',
      'head -c 1000000 /dev/zero | tr "\\0" a > %sig',
    ]) {
      useGetHook(`echo made; ${command}`);
      const answer = await ask('GET');
      assert.deepEqual([answer.status, header(answer), answer.body.toString()], [200, undefined, 'made\n'], command);
      assert.deepEqual(readdirSync(spool).sort(), ['hook-1-2.sig.txt', 'hook-5-6.sig', 'hook-x.sig', 'other'], command);
    }
    for (const name of readdirSync(spool)) rmSync(join(spool, name));
  });

  it('is what the hook writes to %sig, when that is one line', async () => {
    for (const [command, signature] of [
      ['echo made; echo bWFkZQ== > %sig', 'bWFkZQ=='],
      ['echo made; printf bWFkZQ== > %sig', 'bWFkZQ=='],
      ['cat %file; cat %file.sig > %sig', 'c3RvcmVk'],
      ['echo made; rm %sig; echo bWFkZQ== > %sig', 'bWFkZQ=='],
      ['echo made; printf "a\\nb\\n" > %sig', undefined],
      ['echo made; printf "a\\r\\nSet-Cookie: b\\n" > %sig', undefined],
      ['echo made; echo > %sig', undefined],
      ['echo made; head -c 300 /dev/zero > %sig', undefined],
    ] as const) {
      useGetHook(command);
      const answer = await ask('GET');
      assert.deepEqual([answer.status, header(answer)], [200, signature], command);
    }
  });

  it('is missing when the hook removes the file', async () => {
    useGetHook('echo made; rm %sig');
    const answer = await ask('GET');
    assert.deepEqual([answer.status, header(answer)], [200, undefined]);
  });

  it('is required of the hook with DsvRequireSignatures=Y', async () => {
    const required = { DsvRequireSignatures: 'Y' };
    useGetHook('echo made; echo bWFkZQ== > %sig', required);
    assert.equal(header(await ask('GET')), 'bWFkZQ==');
    for (const command of [`echo ran > ${spool}/../incoming/ran; cat %file`, 'echo made; : > %sig', 'rm %sig']) {
      useGetHook(command, required);
      const { status, body } = await ask('GET');
      assert.deepEqual([status, body.length], [459, 0], command);
    }
    assert.equal(readFiles(site.incoming).has('ran'), false, 'without %sig nothing is run');
  });
});
