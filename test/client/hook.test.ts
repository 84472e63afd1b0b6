// GetHook end to end with httpd and the real gpg: the program it makes runs, and nothing runs when
// it fails.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { installPackages } from '../../scripts/debian.ts';
import { type Ended, until } from '../support/client-job.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { findProcesses } from '../support/hooks-site.ts';

/** gpg's agent listens on a socket in the key directory, and the path of a socket must be short. */
const keys = mkdtempSync('/tmp/webjob-gpg-');
let home: ClientSite;
let marker: string;

before(async () => {
  obtainGpg();
  for (const owner of ['trusted', 'stranger']) makeGpgKey(owner);
  const trusted = gpg('trusted', ['--export']);
  mkdirSync(join(keys, 'client'), { mode: 0o700 });
  gpg('client', ['--import'], trusted);
  home = await startClientSite();
  marker = join(home.client.root, 'executed');
});
after(async () => {
  for (const owner of ['trusted', 'stranger', 'client'])
    spawnSync('gpgconf', ['--homedir', join(keys, owner), '--kill', 'all']);
  rmSync(keys, { recursive: true, force: true });
  await home.close();
});
beforeEach(() => {
  rmSync(marker, { force: true });
  for (const name of readdirSync(home.client.temp)) rmSync(join(home.client.temp, name), { recursive: true });
  for (const name of readdirSync(home.site.incoming)) rmSync(join(home.site.incoming, name));
});

/** Installed from Debian packages for root, like httpd. */
function obtainGpg(): void {
  const isThere = (): boolean => spawnSync('gpg', ['--version']).status === 0;
  if (!isThere()) installPackages(['gnupg']);
  if (!isThere()) throw new Error('these tests need gpg: install the package gnupg');
}

function gpg(owner: string, words: string[], input: Uint8Array = Buffer.of()): Buffer {
  const options = ['--homedir', join(keys, owner), '--batch', '--quiet', '--yes', '--passphrase', ''];
  return execFileSync('gpg', [...options, '--pinentry-mode', 'loopback', ...words], { input, stdio: 'pipe' });
}

function makeGpgKey(owner: string): void {
  mkdirSync(join(keys, owner), { mode: 0o700 });
  gpg(owner, ['--quick-generate-key', `${owner}@example.com`, 'ed25519', 'sign', 'never']);
}

const program = (): string => `#!/bin/sh\n: > '${marker}'\necho hooked $0\n`;
/** Not --decrypt, which accepts a message without any signature. */
const GPG = (): string => `gpg --homedir ${join(keys, 'client')} --batch --quiet --output %cmd --verify %file`;

function configure(command: string, more: Record<string, string> = {}): void {
  home.configure({ GetHookEnable: 'Y', GetHookSuffix: '.gpg', GetHookCommandLine: command, ...more });
}

/** Exit code 3 with this error; nothing was run, uploaded or left behind. */
function assertRefused({ code, stdout, stderr }: Ended, why: RegExp): void {
  assert.match(stderr, why);
  assert.match(
    stderr,
    /^(?:webjob: warning: the program is empty[^\n]+\n)?webjob: error: [^\n]+\n(?:webjob: hint: [^\n]+\n)?$/,
  );
  assert.deepEqual([code, stdout, existsSync(marker)], [3, '', false]);
  assert.deepEqual([home.client.left(), readdirSync(home.site.incoming)], [[], []]);
}

describe('host.sh.gpg', () => {
  it('becomes host.sh and runs when the right signer signed it', async () => {
    configure(GPG());
    home.add('host.sh.gpg', gpg('trusted', ['--sign'], Buffer.from(program())));
    assert.deepEqual(await home.client.execute(['host.sh', 'x']), { code: 0, signal: null, stdout: '', stderr: '' });
    const { out, env } = home.takeUpload();
    assert.equal(out.toString(), `hooked ${join(home.client.temp, 'host.sh')}\n`);
    const { GetRequest, Command, CommandLine, GetError } = parseRecord(env).fields;
    assert.deepEqual([GetRequest, Command, CommandLine], ['host.sh.gpg', 'host.sh', 'host.sh x']);
    assert.deepEqual([GetError, existsSync(marker), home.client.left()], ['NA', true, []]);
  });

  const signed = (owner: string): Buffer => gpg(owner, ['--sign', '--compress-algo', 'none'], Buffer.from(program()));
  const FORGERIES: Record<string, () => Buffer> = {
    'when another key signed it': () => signed('stranger'),
    'when it was changed': () => {
      const bytes = signed('trusted');
      const at = bytes.indexOf('hooked');
      assert.ok(at > 0);
      bytes.write('HOOKED', at);
      return bytes;
    },
    'when it was cut off': () => signed('trusted').subarray(0, -9),
    'when it is not a message': () => Buffer.from(program()),
    'without a signature': () => gpg('stranger', ['--store'], Buffer.from(program())),
    'when it is empty': () => Buffer.of(),
  };
  for (const [what, bytes] of Object.entries(FORGERIES)) {
    it(`is never run ${what}`, async () => {
      configure(GPG());
      home.add('host.sh.gpg', bytes());
      assertRefused(await home.client.execute(['host.sh']), /the GetHook ended with [1-9]\d* instead of 0/);
    });
  }

  it('is reported with UploadOnGetFailure=Y when it is refused', async () => {
    configure(GPG(), { UploadOnGetFailure: 'Y' });
    home.add('host.sh.gpg', Buffer.from(program()));
    const { code, stderr } = await home.client.execute(['host.sh']);
    const { out, err, env } = home.takeUpload();
    const { GetError, KidPid, KidStatus, KidSignal, KidReason, RunEpoch, RunError } = parseRecord(env).fields;
    assert.ok(stderr.startsWith(`webjob: error: ${GetError}\n`), stderr);
    assert.match(GetError, /^the GetHook ended with 2 instead of 0: [\x20-\x7e]+$/);
    const none = [KidPid, KidStatus, KidSignal, KidReason, RunEpoch, RunError];
    assert.deepEqual(none, Array(6).fill('NA'));
    assert.deepEqual([code, out.length, err.length, existsSync(marker)], [3, 0, 0, false]);
  });
});

describe('a GetHook', () => {
  const pidFile = (): string => join(home.client.root, 'hook-pid');
  const isAlive = (pid: number): boolean => findProcesses('sleep\x00307').includes(pid);
  beforeEach(() => home.add('host.sh.gpg', program()));

  it('runs as long as it takes without a time limit', async () => {
    configure('sleep 0.5; cp %file %cmd', { GetHookTimeLimit: '0' });
    assert.deepEqual(await home.client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
    home.takeUpload();
  });

  it('cannot reach the terminal or add a line by what it writes', async () => {
    configure("printf 'first\\n\\033[2J\\302\\2332J\\r\\0last' >&2; exit 9");
    assertRefused(
      await home.client.execute(['host.sh']),
      /^webjob: error: the GetHook ended with 9 instead of 0: \?\[2J\?\?2J\?\?last\n/,
    );
  });

  it('succeeds with GetHookStatus and no other exit code', async () => {
    const command = 'cp %file %cmd; echo 100%% >&2; exit';
    configure(`${command} 7`, { GetHookStatus: '7' });
    assert.equal((await home.client.execute(['host.sh'])).code, 0);
    home.takeUpload();
    rmSync(marker);
    configure(command, { GetHookStatus: '7' });
    assertRefused(await home.client.execute(['host.sh']), /the GetHook ended with 0 instead of 7: 100%\n/);
  });

  const FAILURES: [what: string, command: string, why: RegExp][] = [
    ['makes no file', ':', /the GetHook made no file host\.sh\n/],
    ['makes a link', 'mv %file x; ln -s x %cmd', /the GetHook made no file host\.sh\n/],
    ['makes a folder', 'mkdir %cmd', /the GetHook made no file host\.sh\n/],
    ['makes a fifo', 'mkfifo %cmd', /the GetHook made no file host\.sh\n/],
    ['is killed', 'cp %file %cmd; kill -9 $$', /the GetHook ended with SIGKILL\n/],
    ['does not exist', 'cp %file %cmd; /nowhere/hook', /the GetHook ended with 127 instead of 0: /],
  ];
  for (const [what, command, why] of FAILURES) {
    it(`runs nothing when it ${what}`, async () => {
      configure(command);
      assertRefused(await home.client.execute(['host.sh']), why);
    });
  }

  it('is ended with everything it started when it hangs', async () => {
    configure(`cp %file %cmd; sleep 307 & echo $! > ${pidFile()}; sleep 307`, { GetHookTimeLimit: '1' });
    assertRefused(await home.client.execute(['host.sh']), /the GetHook ended with GetHookTimeLimit after 1 seconds\n/);
    const pid = Number(readFileSync(pidFile(), 'utf8'));
    await until(() => !isAlive(pid), 'the end of what the hook started');
  });

  it('is ended with processes in groups of their own when it hangs', async () => {
    configure(`cp %file %cmd; timeout 99 sleep 307 & echo $! > ${pidFile()}; sleep 307`, { GetHookTimeLimit: '1' });
    assertRefused(await home.client.execute(['host.sh']), /the GetHook ended with GetHookTimeLimit after 1 seconds\n/);
    const pid = Number(readFileSync(pidFile(), 'utf8'));
    await until(() => !isAlive(pid), 'the end of what the hook started');
  });

  it('has no limit with GetHookTimeLimit=0', async () => {
    configure('sleep 0.5; cp %file %cmd', { GetHookTimeLimit: '0' });
    assert.equal((await home.client.execute(['host.sh'])).code, 0);
    home.takeUpload();
    rmSync(marker);
  });

  it('cannot change the terminal with its output', async () => {
    configure("printf 'a\\033[31m\\302\\233b\\t\\177\\377c' >&2; exit 3");
    assertRefused(await home.client.execute(['host.sh']), /instead of 0: a\?\[31m\?\?b\?\?\?c\n/);
  });

  it('leaves nothing behind that could change the program', async () => {
    configure(`cp %file %cmd; sleep 307 & echo $! > ${pidFile()}`);
    assert.equal((await home.client.execute(['host.sh'])).code, 0);
    home.takeUpload();
    const pid = Number(readFileSync(pidFile(), 'utf8'));
    await until(() => !isAlive(pid), 'the end of what the hook started');
  });

  it('ends with webjob when a signal ends webjob', async () => {
    rmSync(pidFile(), { force: true });
    configure(`sleep 307 & echo $! > ${pidFile()}.new; mv ${pidFile()}.new ${pidFile()}; wait`);
    const { child, ended } = home.client.start(['host.sh']);
    await until(() => existsSync(pidFile()), 'the hook runs');
    const pid = Number(readFileSync(pidFile(), 'utf8'));
    await until(() => isAlive(pid), 'its command has begun');
    child.kill('SIGTERM');
    assert.equal((await ended).code, 143);
    await until(() => !isAlive(pid), 'the end of the hook');
    assert.deepEqual([home.client.left(), existsSync(marker)], [[], false]);
  });

  it('fetches only the name with the suffix', async () => {
    rmSync(join(home.site.profiles, 'client1', 'host.sh.gpg'));
    configure('cp %file %cmd');
    assertRefused(await home.client.execute(['host.sh']), /GET of host\.sh\.gpg failed: Status = \[404\]/);
  });
});
