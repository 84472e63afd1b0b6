// webjobctl init and client, killed by SIGKILL at one system call after the other: nothing is lost,
// no incomplete file has its final name, no secret is readable by others, and the command can be
// run again.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { NO_STRACE } from '../support/locker-strace.ts';
import { makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

const WEBJOBCTL = join(import.meta.dirname, '..', '..', 'dist', 'webjobctl');
/**
 * Calls that change names, permissions or what is on disk. Only those of webjobctl, because openssl
 * and htpasswd continue when it is killed.
 */
const CALLS =
  '?fsync,?rename,?renameat,?renameat2,?unlink,?unlinkat,?link,?linkat,?mkdir,?mkdirat,?rmdir,?chmod,?fchmod';

obtainHtpasswd();
const ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
const site = (name: string): string => at('site', name);
after(() => ground.remove());

const INIT = [
  'init',
  '--prefix',
  at('site'),
  '--node',
  ground.node,
  '--tls',
  '--certificates',
  '--server-name',
  'localhost',
];
const client = (...args: string[]): string[] => ['--config', site('etc/nph-webjob.cfg'), 'client', ...args];

interface Call {
  name: string;
  /** The index among the calls of that name. */
  count: number;
}

/**
 * Runs webjobctl under strace, which kills it at a call or lets it finish; returns the calls that
 * it made.
 */
function runTraced(args: readonly string[], killAt?: Call): { isKilled: boolean; calls: Call[] } {
  const fault = killAt ? ['-e', `inject=${killAt.name}:signal=SIGKILL:when=${killAt.count}`] : [];
  const strace = ['-o', at('trace'), '-e', `trace=${CALLS}`, ...fault, process.execPath, WEBJOBCTL, ...args];
  const { libraryPath } = obtainHttpd();
  const ended = spawnSync('strace', strace, {
    cwd: ground.root,
    input: '',
    timeout: 120_000,
    encoding: 'utf8',
    env: { ...process.env, ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }) },
  });
  const isKilled = ended.signal === 'SIGKILL' || ended.status === 137;
  if (!isKilled && ended.status !== 0) throw new Error(`${args.join(' ')}: ${ended.status}: ${ended.stderr}`);
  const names = [...readFileSync(at('trace'), 'utf8').matchAll(/^(\w+)\(/gm)].map(([, name = '']) => name);
  const calls = names.map((name, index) => {
    return { name, count: names.slice(0, index + 1).filter((other) => other === name).length };
  });
  return { isKilled, calls };
}

/** All files below a directory, by relative path. */
function listFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder, { recursive: true }).map(String);
  return names.filter((name) => lstatSync(join(folder, name)).isFile()).sort();
}

/** Whether a user who is neither the owner nor in the group can read it. */
function isOpen(path: string): boolean {
  if ((lstatSync(path).mode & 0o004) === 0) return false;
  for (let folder = dirname(path); folder !== ground.root; folder = dirname(folder))
    if ((lstatSync(folder).mode & 0o001) === 0) return false;
  return true;
}

const SECRET = /PRIVATE KEY|^URLPassword=|^[\w-]+:\$2y\$/m;

/** Invariants after a kill at any moment. */
function checkGround(): void {
  for (const folder of FOLDERS) {
    for (const name of listFiles(at(folder))) {
      const path = at(folder, name);
      const text = readFileSync(path, 'latin1');
      // A man page contains a password as an example.
      const isSecret = SECRET.test(text) && !name.startsWith('share/man/');
      if (isSecret) assert.ok(!isOpen(path), `${path} is open to others`);
      checkWhole(path, text);
    }
  }
}

/** A file with its final name is complete. */
function checkWhole(path: string, text: string): void {
  const name = basename(path);
  if (name.startsWith('.') && name !== '.htaccess') return;
  if (path.split('/').some((folder) => folder.includes('.new-'))) return;
  if (/\.(?:crt|pem)$/.test(name)) new X509Certificate(text);
  else if (name.endsWith('.key')) createPrivateKey(text);
  else if (name.endsWith('.crl')) assert.match(text, /^-----BEGIN X509 CRL-----\n[\s\S]+-----END X509 CRL-----\n$/);
  else if (name === 'webjob.htpasswd') assert.match(text, /^(?:[\w-]+:\$2y\$\d\d\$[./A-Za-z0-9]{53}\n)*$/);
  else if (name === 'webjob.conf' && text.startsWith('# webjob.conf of'))
    assert.match(text, /\nSpoolDirectory=spool\nSpoolLimit=1073741824\n$/);
  else if (name === 'index.txt') assert.match(text, /^(?:[VR]\t[^\n]+\n)*$/);
}

const passwordIn = (folder: string): string =>
  /^URLPassword=(.+)$/m.exec(readFileSync(at(folder, 'webjob.conf'), 'utf8'))?.[1] ?? '';

function lets(name: string, password: string): boolean {
  const checked = spawnSync('htpasswd', ['-vi', site('etc/webjob.htpasswd'), name], { input: `${password}\n` });
  return checked.status === 0;
}

/** The states of a client's certificates, in order; all revoked ones are on the list. */
function statesOf(name: string): string {
  const lines = readFileSync(site('etc/webjob-ca/index.txt'), 'utf8').split('\n').filter(Boolean);
  const list = spawnSync('openssl', ['crl', '-in', site('etc/webjob-ca.crl'), '-noout', '-text'], { encoding: 'utf8' });
  const own = lines.map((line) => line.split('\t')).filter((fields) => fields[5] === `/CN=${name}`);
  for (const [state, , , serial] of own)
    if (state === 'R') assert.match(list.stdout, new RegExp(`Serial Number: 0*${serial}\n`));
  return own.map(([state]) => state).join('');
}

function checkPair(folder: string, name: string): void {
  const certificate = new X509Certificate(readFileSync(at(folder, `${name}.crt`)));
  assert.ok(certificate.checkPrivateKey(createPrivateKey(readFileSync(at(folder, `${name}.key`)))));
  assert.equal(certificate.subject, `CN=${name}`);
}

/**
 * Temporary files beside a file, the lock of a dead process, and a temporary workdir of the CA, all
 * of which the next run removes.
 */
const LEFT = /(?:^|\/)\.(?!htaccess$|desk\.)(?!.*\.lock)/;
const FOLDERS = ['site', 'one', 'old'] as const;

function copyFolders(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of FOLDERS) {
    rmSync(join(to, name), { recursive: true, force: true });
    // With owners, which node:fs does not copy.
    if (existsSync(join(from, name))) assert.equal(spawnSync('cp', ['-a', join(from, name), to]).status, 0);
  }
}

interface Trial {
  args: string[];
  points: number;
  /** The exit codes that a second run may have when the first was killed in its last moments. */
  mayEndWith?: number;
  /** Called before the last run, when that was refused with `mayEndWith`. */
  mend?(): void;
  checkEnd(): void;
}

/**
 * Kills a command at points spread over its run, each time from the same state; then it must run to
 * its end.
 */
async function runTrial({ args, points, mayEndWith, mend, checkEnd }: Trial): Promise<void> {
  copyFolders(at(), at('was'));
  const { calls } = runTraced(args);
  for (let point = 1; point <= points; point++) {
    const when = Math.floor(((point - 0.5) * calls.length) / points);
    const place = `call ${when + 1} of ${calls.length}, ${calls[when]?.name}`;
    copyFolders(at('was'), at());
    assert.ok(runTraced(args, calls[when]).isKilled, `not killed at ${place}`);
    checkGround();
    let ended = await runWebjobctl(args, { cwd: ground.root });
    if (mend && ended.code === mayEndWith) {
      mend();
      ended = await runWebjobctl(args, { cwd: ground.root });
    }
    assert.ok([0, mayEndWith].includes(ended.code ?? -1), `${place}: ${ended.stderr}`);
    checkGround();
    checkEnd();
    const left = ['site', 'one'].flatMap((name) => listFiles(at(name))).filter((name) => LEFT.test(name));
    assert.deepEqual(left, [], `left behind ${place}`);
  }
}

/** The existing client is unchanged. */
function checkOld(): void {
  assert.ok(lets('old', passwordIn('old')), 'the password of another client is lost');
  assert.equal(statesOf('old'), 'V');
  checkPair('old', 'old');
}

describe('webjobctl killed by SIGKILL', { skip: NO_STRACE }, () => {
  it('lets init be repeated, which completes the site', async () => {
    await runTrial({
      args: INIT,
      points: 2,
      checkEnd() {
        const settings = readFileSync(site('etc/nph-webjob.cfg'), 'utf8');
        assert.match(settings, new RegExp(`^BaseDirectory=${site('integrity')}$`, 'm'));
        const key = createPrivateKey(readFileSync(site('etc/webjob-server.key')));
        assert.ok(new X509Certificate(readFileSync(site('etc/webjob-server.crt'))).checkPrivateKey(key));
      },
    });
    const again = await ground.run(0, ...INIT, '--json');
    assert.deepEqual(new Set(parseLines(again).flatMap(({ state }) => state ?? [])), new Set(['kept']));
    await ground.run(0, ...client('add', 'old', '--generate', '--cert'));
  });

  it('lets client add be repeated, with a valid password and certificate', async () => {
    await runTrial({
      args: client('add', 'one', '--generate', '--cert'),
      points: 3,
      checkEnd() {
        checkOld();
        assert.ok(lets('one', passwordIn('one')));
        checkPair('one', 'one');
        assert.match(statesOf('one'), /^R?V$/);
      },
    });
  });

  it('leaves the old or the new password of client passwd, and the client has it', async () => {
    await runTrial({
      args: client('passwd', 'one', '--generate'),
      points: 1,
      checkEnd() {
        checkOld();
        assert.ok(lets('one', passwordIn('one')));
      },
    });
  });

  it('leaves one certificate of client renew, which matches the key', async () => {
    rmSync(at('one', 'one.key'));
    await runTrial({
      args: client('renew', 'one', '--new-key', '--revoke'),
      points: 2,
      // The new key already existed.
      mayEndWith: 4,
      mend: () => rmSync(at('one', 'one.key')),
      checkEnd() {
        checkOld();
        checkPair('one', 'one');
        assert.match(statesOf('one'), /^R+V$/);
      },
    });
  });

  it('leaves no access after client remove', async () => {
    await runTrial({
      args: client('remove', 'one'),
      points: 2,
      // It was already removed.
      mayEndWith: 1,
      checkEnd() {
        checkOld();
        assert.ok(!lets('one', passwordIn('one')));
        assert.match(statesOf('one'), /^R+$/);
      },
    });
  });
});
