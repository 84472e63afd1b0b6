// A locker with a past, for prune and pack: uploads made by real CGI processes, with the ages that
// a test needs, and where they are at any moment: in the locker, in archives, recorded.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Site } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite, makeRecord } from './locker-site.ts';
import { readFiles } from './tree.ts';

export const WEBJOBCTL = join(import.meta.dirname, '..', '..', 'dist', 'webjobctl');

/** The number of days ago at which the client uploaded `command`. */
export interface Past {
  clientId?: string;
  command?: string;
  days: number;
  out?: string;
}

export interface OldLocker extends LockerSite {
  /** The names of the uploads, in the order of `past`. */
  names: string[];
}

/** Makes the uploads one after the other, with one CGI process each. */
export async function makeOldLocker(past: readonly Past[], settings: Record<string, string> = {}): Promise<OldLocker> {
  const locker = makeLockerSite(settings);
  const names: string[] = [];
  for (const { clientId = 'client1', command = 'host.sh', days, out = `${days} days ago\n` } of past) {
    const before = new Set(groupNames(locker.site));
    const jobId = `server_1_1085355126_${String(names.length).padStart(5, '0')}`;
    const env = makeRecord({ ClientId: clientId, GetRequest: command, Command: command, Jid: jobId });
    await locker.put({ clientId, fileName: command, jobId, out, err: 'told\n', env });
    const [name = ''] = groupNames(locker.site).filter((found) => !before.has(found));
    setAge(locker.site, name, days);
    names.push(name);
  }
  return { ...locker, names };
}

/** The complete uploads in the locker. */
export function groupNames({ incoming }: Site): string[] {
  return [...readFiles(incoming).keys()].flatMap((path) => /^(.+)\.rdy$/.exec(path)?.[1] ?? []).sort();
}

export function setAge({ incoming }: Site, name: string, days: number): void {
  const then = Date.now() / 1000 - days * 86_400;
  for (const extension of ['out', 'err', 'env', 'rdy', 'lck']) {
    const path = join(incoming, `${name}.${extension}`);
    if (existsSync(path)) utimesSync(path, then, then);
  }
}

/** The files of an upload with their contents; fewer than four when it is incomplete. */
export function filesOf(files: ReadonlyMap<string, string>, name: string): Record<string, string> {
  return Object.fromEntries([...files].filter(([path]) => path.slice(0, -4) === name).sort());
}

/** The files of the locker, with their times in milliseconds. */
export function readTimes({ incoming }: Site): Record<string, number> {
  const paths = [...readFiles(incoming).keys()].sort();
  return Object.fromEntries(paths.map((path) => [path, Math.round(lstatSync(join(incoming, path)).mtimeMs)]));
}

/** What the system's tar unpacks from the archives that have a manifest. */
export function unpackByTar({ base }: Site): Map<string, string> {
  const packed = join(base, 'packed');
  const target = mkdtempSync(join(tmpdir(), 'webjob-tar-'));
  try {
    for (const file of existsSync(packed) ? readdirSync(packed) : []) {
      const [, name] = /^(.+)\.jsonl$/.exec(file) ?? [];
      if (name === undefined) continue;
      const { status, stderr } = spawnSync('tar', ['xzf', join(packed, `${name}.tar.gz`), '-C', target]);
      if (status !== 0) throw new Error(`tar does not unpack ${name}: ${stderr}`);
    }
    return readFiles(target);
  } finally {
    rmSync(target, { recursive: true });
  }
}

export interface CustodyLine {
  event: string;
  by?: string;
  rule?: string;
  groups?: { name: string; jobId: string; files: Record<string, { bytes: number; sha256: string }> }[];
  [name: string]: unknown;
}

/** What webjobctl recorded. */
export function readCustody({ base }: Site): CustodyLine[] {
  const path = join(base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl');
  if (!existsSync(path)) return [];
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => (line === '' ? [] : [JSON.parse(line.slice(line.lastIndexOf('{"covers"'))) as CustodyLine]));
}

/**
 * Starts webjobctl with `wrapper`, and kills it after some milliseconds if it still runs. Returns
 * whether it was killed.
 */
export function runKilled(
  { propertiesFile }: Site,
  args: readonly string[],
  milliseconds: number | undefined,
  wrapper: readonly string[] = [],
): Promise<boolean> {
  const [program = '', ...words] = [...wrapper, process.execPath, WEBJOBCTL, '--config', propertiesFile, ...args];
  const child = spawn(program, words, { stdio: 'ignore', timeout: 60_000, killSignal: 'SIGKILL' });
  const timer = milliseconds === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), milliseconds);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      resolve(signal === 'SIGKILL' || code === 137);
    });
  });
}

/** A directory of the test outside of the site's tree. */
export function makeScratch({ root }: Site): string {
  const path = join(root, 'scratch');
  mkdirSync(path, { recursive: true });
  return path;
}
