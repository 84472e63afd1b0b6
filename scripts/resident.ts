// A site with a persistent worker: the process itself, and an httpd in front of it in either of the
// two shipped configurations.
import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, lstatSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HttpdOptions, type HttpdServer, startHttpd } from './httpd.ts';
import type { Site } from './site.ts';
import { findWebUser } from './web-user.ts';

const SHIPPED = join(import.meta.dirname, '..', 'apache');
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 20_000;

export interface Resident {
  pid: number;
  socket: string;
  /** The output of the process on stderr so far. */
  complaints(): string;
  /** Resolves with the exit code, or the signal that ended the process. */
  ended: Promise<number | string>;
  /** Sends SIGTERM, and SIGKILL if that does not help. */
  stop(): Promise<number | string>;
  /** Lets this process exit before the worker does. */
  unref(): void;
}

/**
 * Starts the script so that it listens on a socket in a directory of the web user. `wrapper` is a
 * program that executes it.
 */
export async function startResident(
  site: Site,
  args: string[] = [],
  nodeOptions = '',
  wrapper: readonly string[] = [],
): Promise<Resident> {
  const folder = join(site.root, 'run');
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  mkdirSync(folder, { recursive: true });
  if (user) chownSync(folder, user.uid, user.gid);
  const socket = join(folder, 'socket');
  const inode = (): bigint | undefined => lstatSync(socket, { bigint: true, throwIfNoEntry: false })?.ino;
  const before = inode();
  const script = [process.execPath, join(site.cgiDirectory, 'nph-webjob.cgi'), '--listen', socket, ...args];
  const [program = '', ...words] = [...wrapper, ...script];
  const child = spawn(program, words, {
    stdio: ['ignore', 'ignore', 'pipe'],
    // Root starts the process, so the web user need not be able to reach the binary.
    ...(user && { uid: user.uid, gid: user.gid }),
    // As in the shipped files.
    env: { NODE_OPTIONS: `--max-old-space-size=64 --max-semi-space-size=4 ${nodeOptions}` },
    cwd: '/',
  });
  const resident = watch(child, socket);
  for (const deadline = Date.now() + START_LIMIT_MS; inode() === before; await sleep(10)) {
    if (Date.now() > deadline || child.exitCode !== null)
      throw new Error(`it does not listen: ${resident.complaints()}`);
  }
  return resident;
}

function watch(child: ChildProcess, socket: string): Resident {
  let complaints = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk;
  });
  const ended = new Promise<number | string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('exit', (code, signal) => resolve(code ?? signal ?? 'nothing'));
  });
  const stop = async (): Promise<number | string> => {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
    try {
      return await ended;
    } finally {
      clearTimeout(timer);
    }
  };
  const unref = (): void => {
    child.unref();
    (child.stderr as Socket | null)?.unref();
  };
  return { pid: child.pid ?? 0, socket, complaints: () => complaints, ended, stop, unref };
}

export const WAYS = ['mod_fcgid', 'mod_proxy_fcgi'] as const;
export type Way = (typeof WAYS)[number];

/** The modules that httpd needs for a way. */
export const MODULES_OF_WAY: Record<Way, string[]> = { mod_fcgid: ['fcgid'], mod_proxy_fcgi: ['proxy', 'proxy_fcgi'] };

/** The lines that switch a site to a way, after webjob.conf, as in the guide. */
export function linesOfWay(way: Way, site: Site, run: string): { before: string; after: string } {
  const include = (name: string): string => `Include "${join(SHIPPED, name)}"`;
  if (way === 'mod_proxy_fcgi') {
    const socket = join(site.root, 'run', 'socket');
    return { before: `Define WEBJOB_SOCKET "${socket}"`, after: include('webjob-proxy-fcgi.conf') };
  }
  const own = `FcgidIPCDir "${run}/fcgid"\nFcgidProcessTableFile "${run}/fcgid_shm"`;
  return {
    before: `${own}\nDefine WEBJOB_PATH ${run}:${dirname(process.execPath)}:/usr/bin:/bin`,
    after: include('webjob-fcgid.conf'),
  };
}

export interface ResidentSite {
  server: HttpdServer;
  /** The process behind mod_proxy_fcgi; mod_fcgid has its own. */
  resident: Resident | undefined;
  close(): Promise<void>;
}

/** Serves a site, made with `resident`, in one of the ways. `args` are for the worker. */
export async function startWay(
  way: Way,
  site: Site,
  options: Partial<HttpdOptions> = {},
  args: string[] = [],
): Promise<ResidentSite> {
  const { before, after } = linesOfWay(way, site, join(site.root, 'httpd-event'));
  const resident = way === 'mod_proxy_fcgi' ? await startResident(site, args) : undefined;
  try {
    const server = await startHttpd({
      site,
      mpm: 'event',
      ...options,
      modules: [...MODULES_OF_WAY[way], ...(options.modules ?? [])],
      before: `${before}\n${options.before ?? ''}`,
      after: `${after}\n${options.after ?? ''}`,
    });
    const close = async (): Promise<void> => {
      await server.stop();
      await resident?.stop();
    };
    return { server, resident, close };
  } catch (error) {
    await resident?.stop();
    throw error;
  }
}

/** The ids of all processes that run a script of this site. */
export function findProcesses(site: Site): number[] {
  const isOurs = (pid: string): boolean => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(join(site.cgiDirectory, 'nph-webjob.cgi'));
    } catch {
      return false;
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name) && isOurs(name))
    .map(Number);
}
