// A site with jobs in every state that an evidence package can have: archived, on hold,
// time-stamped, covered by a newer checkpoint, by none, sent twice, refused, with a signed program
// and without; and VERIFY.sh as the shells run it for a recipient without Node and WebJob.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { addCommand } from '../../scripts/site.ts';
import { groupNames, setAge } from './keep-site.ts';
import { type LockerSite, makeLockerSite, makeRecord, type Ran } from './locker-site.ts';
import { findProgram } from './pad-workshop.ts';
import { readFiles } from './tree.ts';

export interface PackageSite extends LockerSite {
  at(name: string): string;
  /** Runs webjobctl, which must end with this exit code. */
  expect(exitCode: number, ...args: string[]): Promise<Ran>;
  /** The job ids. */
  jobs: Record<'packed' | 'twice' | 'refused' | 'later' | 'uncovered' | 'others' | 'othersLater', string>;
  /**
   * Options with everything that the package must be checked with: the public keys and the
   * certificate.
   */
  keys: string[];
}

const md5 = (text: string): string => createHash('md5').update(text, 'latin1').digest('hex');

/** A PUT with the hashes of the run record. */
function makePut(clientId: string, fileName: string, jobId: string, out: string, err = '') {
  const hashes = { HashType: 'MD5', StdOutHash: md5(out), StdErrHash: md5(err) };
  const env = makeRecord({ ClientId: clientId, GetRequest: fileName, Command: fileName, Jid: jobId, ...hashes });
  return { clientId, fileName, jobId, out, err, env };
}

/** Makes the site. */
export async function makePackageSite(settings: Record<string, string> = {}): Promise<PackageSite> {
  const its = makeLockerSite(settings);
  const { site, get, put } = its;
  const at = (name: string): string => join(site.root, name);
  const expect = async (exitCode: number, ...args: string[]): Promise<Ran> => {
    const ran = await its.webjobctl(...args);
    if (ran.exitCode !== exitCode)
      throw new Error(`webjobctl ${args.join(' ')}: ${ran.exitCode}: ${ran.stderr}${ran.text}`);
    return ran;
  };
  addCommand(site, 'client2', 'ps.sh', '#!/bin/sh\nps\n');
  const program = join(site.profiles, 'client1', 'host.sh');
  for (const [name, keyName] of [
    ['custody', 'custody'],
    ['author', 'example.org/author'],
    ['stranger', 'stranger'],
  ] as const)
    await expect(0, 'sign', 'keygen', at(name), '--key-name', keyName);
  await expect(0, 'sign', 'payload', '--key', at('author.key'), '--client', 'client*', program);
  await expect(0, 'sign', 'trust', 'add', at('trusted.keys'), at('author.vkey'));
  const run = async (clientId: string, fileName: string, out: string, times = 1): Promise<string> => {
    const { jobId } = await get(clientId, fileName);
    for (let time = 0; time < times; time++) await put(makePut(clientId, fileName, jobId, out, 'told\n'));
    return jobId;
  };
  const packed = await run('client1', 'host.sh', 'packed\n');
  for (const name of groupNames(site)) setAge(site, name, 40);
  await expect(0, 'pack', '--older-than', '30d');
  const twice = await run('client1', 'host.sh', '\0\xff binary \x1b[2J\n', 2);
  // Named by time and process: the second one is a separate upload.
  const others = await run('client2', 'ps.sh', 'belongs elsewhere\n');
  await stampCheckpoint(its, at, expect);
  const later = await run('client1', 'host.sh', 'later\n');
  const othersLater = await run('client2', 'ps.sh', 'belongs elsewhere, later\n');
  await expect(0, 'custody', 'checkpoint', '--key', at('custody.key'));
  const uncovered = await run('client1', 'host.sh', 'uncovered\n');
  const { jobId: refused } = await get('client1', 'host.sh');
  await put({ ...makePut('client1', 'host.sh', refused, 'never stored\n'), user: 'client2' });
  await expect(0, 'hold', 'add', '--client', 'client1', '--reason', 'case 4711, for the court');
  const jobs = { packed, twice, refused, later, uncovered, others, othersLater };
  const keys = ['--key', at('custody.pub'), '--ca', at('tsa/tsa.pem'), '--trusted', at('trusted.keys')];
  return { ...its, at, expect, jobs, keys };
}

/** Has a real authority stamp the first checkpoint. */
async function stampCheckpoint(
  { site }: LockerSite,
  at: PackageSite['at'],
  expect: PackageSite['expect'],
): Promise<void> {
  const key = ['--key', at('custody.key'), '--origin', 'example.org/webjob', '--server', 'server_1'];
  await expect(0, 'custody', 'checkpoint', ...key);
  await expect(0, 'custody', 'checkpoint', '--key', at('custody.key'));
  mkdirSync(at('tsa'));
  const openssl = (...args: string[]): string =>
    execFileSync('openssl', args, { cwd: at('tsa'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const lines = ['[t]', 'serial=serial', 'signer_cert=tsa.pem', 'signer_key=tsa.key', 'signer_digest=sha256'];
  writeFileSync(at('tsa/tsa.cnf'), [...lines, 'default_policy=1.2.3', 'digests=sha256', ''].join('\n'));
  const usage = ['-addext', 'extendedKeyUsage=critical,timeStamping', '-days', '3'];
  const subject = ['-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=tsa', '-keyout', 'tsa.key'];
  openssl('req', '-x509', ...subject, ...usage, '-out', 'tsa.pem');
  const server = ['--server', 'server_1'];
  await expect(0, 'custody', 'timestamp', ...server, '--request', at('tsa/question.tsq'));
  const reply = ['-config', 'tsa.cnf', '-section', 't', '-queryfile', 'question.tsq', '-out', 'answer.tsr'];
  openssl('ts', '-reply', ...reply);
  const answer = ['--response', at('tsa/answer.tsr'), '--ca', at('tsa/tsa.pem')];
  await expect(0, 'custody', 'timestamp', ...server, ...answer);
  if (readdirSync(join(site.base, 'config', 'nph-webjob', 'custody-timestamps.server_1')).length !== 2)
    throw new Error('nothing was stamped');
}

/** What VERIFY.sh may run: POSIX tools, sha256sum and openssl. */
const TOOLS = [
  ...['sha256sum', 'openssl', 'cat', 'cmp', 'cp', 'cut', 'dd', 'find', 'grep', 'head', 'mkdir', 'mv', 'od'],
  ...['rm', 'sed', 'sort', 'tail', 'tr', 'uniq', 'wc'],
];

export interface Checker {
  name: string;
  /** Runs a VERIFY.sh, else that of the package; returns its exit code and output. */
  check(folder: string, script?: string): { code: number | null; text: string };
}

/** Each shell with its tools in a PATH of its own, without Node. */
export function makeCheckers(folder: string): Checker[] {
  return (['dash', 'busybox', 'bash'] as const).map((name) => {
    const shell = findProgram(name);
    if (shell === undefined) throw new Error(`the tests of packages need ${name}`);
    const bin = join(folder, `bin-${name}`);
    mkdirSync(bin, { recursive: true });
    for (const tool of TOOLS) {
      const isApplet = name === 'busybox' && tool !== 'openssl';
      symlinkSync(isApplet ? shell : (findProgram(tool) ?? ''), join(bin, tool));
    }
    const words = name === 'busybox' ? ['sh'] : [];
    const env = { PATH: bin, HOME: folder, TMPDIR: '/tmp' };
    return {
      name,
      check(cwd, script = 'VERIFY.sh') {
        const args = [...words, resolve(cwd, script), ...(isAbsolute(script) ? [cwd] : [])];
        const { status, stdout, stderr } = spawnSync(shell, args, { cwd: '/', env, encoding: 'latin1' });
        return { code: status, text: `${stdout}${stderr}` };
      },
    };
  });
}

/** What was checked, in order: the lines that begin with OK, FAILED or NOTE. */
export function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => /^(?:OK {6}|FAILED {2}|NOTE {4})\S/.test(line));
}

/** Makes the lists of a package again, so that what only they protect is not found. */
export function listAgain(folder: string): void {
  const files = readFiles(folder);
  const isTag = (path: string): boolean => !path.startsWith('data/') && path !== 'tagmanifest-sha256.txt';
  const list = (name: string, isMeant: (path: string) => boolean): void => {
    const paths = [...files.keys()].filter(isMeant).sort();
    const lines = paths.map((path) => `${sha256(join(folder, path))}  ${path}\n`);
    writeFileSync(join(folder, name), lines.join(''));
  };
  list('manifest-sha256.txt', (path) => path.startsWith('data/'));
  list('tagmanifest-sha256.txt', isTag);
}

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Changes one byte of a file; returns a function that restores it. */
export function changeByte(path: string, at: number, difference: number): () => void {
  const bytes = readFileSync(path);
  const changed = Buffer.from(bytes);
  changed.writeUInt8((changed.readUInt8(at) + difference) % 256, at);
  writeFileSync(path, changed);
  return () => {
    writeFileSync(path, bytes);
    chmodSync(path, 0o600);
  };
}
