// The view of a private site: its program, its directory, its users, and the lines with which httpd
// serves it.
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Site } from './site.ts';
import { findWebUser, openProgram } from './web-user.ts';

const project = join(import.meta.dirname, '..');
const START_LIMIT_MS = 30_000;

/** The ways in which httpd runs the program. */
export const VIEW_WAYS = ['cgi', 'mod_fcgid', 'mod_proxy_fcgi'] as const;
export type ViewWay = (typeof VIEW_WAYS)[number];

/** The modules that httpd needs for a way. */
export const MODULES_OF_VIEW: Record<ViewWay, string[]> = {
  cgi: ['headers'],
  mod_fcgid: ['headers', 'fcgid'],
  mod_proxy_fcgi: ['headers', 'proxy', 'proxy_fcgi', 'authz_groupfile'],
};

export interface ViewOptions {
  site: Site;
  way: ViewWay;
  /** The passwords of users, by name. */
  readers: Readonly<Record<string, string>>;
  isRecorded?: boolean;
  /**
   * Whether users authenticate by certificate instead of password; the caller provides modules and
   * CA.
   */
  certificates?: boolean;
  /** The users who may act. */
  actors?: readonly string[];
}

export interface View {
  /** The lines for httpd that follow those of the site. */
  lines: string;
  /** The view's own directory. */
  folder: string;
  /** The process behind mod_proxy_fcgi. */
  pid: number | undefined;
  complaints(): string;
  stop(): Promise<void>;
}

/**
 * Installs the program, and for mod_proxy_fcgi starts it as a user who cannot write to the site.
 */
export async function startView({
  site,
  way,
  readers,
  isRecorded = false,
  actors,
  certificates,
}: ViewOptions): Promise<View> {
  const own = join(site.root, `view-${way}`);
  const [program, folder, run] = ['program', 'state', 'run'].map((name) => join(own, name)) as [string, string, string];
  for (const path of [own, program, folder, run]) mkdirSync(path, { recursive: true, mode: 0o755 });
  copyFileSync(join(project, 'dist', 'webjob-view.cgi'), join(program, 'webjob-view.cgi'));
  const users = join(own, 'readers');
  const lines = Object.entries(readers).map(([name, password]) => `${name}:{SHA}${sha1(password)}\n`);
  writeFileSync(users, lines.join(''), { mode: 0o644 });
  const isRoot = process.getuid?.() === 0;
  const web = isRoot ? findWebUser() : undefined;
  const user = way === 'mod_proxy_fcgi' && isRoot ? findReader() : web;
  for (const path of [folder, run]) if (user) chownSync(path, user.uid, user.gid);
  const groups = join(own, 'groups');
  if (actors) {
    writeFileSync(groups, `webjob-acts: ${actors.join(' ')}\n`, { mode: 0o644 });
    const inbox = join(site.base, 'config', 'webjob-acts', 'inbox');
    mkdirSync(dirname(inbox), { recursive: true, mode: 0o755 });
    mkdirSync(inbox, { mode: 0o700 });
    if (user) chownSync(inbox, user.uid, user.gid);
  }
  const socket = join(run, 'view.sock');
  const node = openProgram(process.execPath, () => own);
  const worker =
    way === 'mod_proxy_fcgi'
      ? startWorker(node, [join(program, 'webjob-view.cgi'), '--listen', socket], user)
      : undefined;
  if (worker) await untilThere(socket, worker.child, worker.complaints);
  // As with systemd: the socket belongs to httpd's user, the process does not.
  if (worker && web) chownSync(socket, web.uid, web.gid);
  const defines = {
    WEBJOB_VIEW_DIRECTORY: program,
    WEBJOB_VIEW_STATE: folder,
    WEBJOB_VIEW_USER_FILE: users,
    WEBJOB_VIEW_ACCESS_RECORD: isRecorded ? 'on' : 'off',
    ...(worker && { WEBJOB_VIEW_SOCKET: socket }),
    ...(actors && { WEBJOB_VIEW_GROUP_FILE: groups }),
    ...(certificates && { WEBJOB_VIEW_CERTIFICATES: '' }),
    ...(way === 'mod_fcgid' && { WEBJOB_VIEW_FCGID: '', WEBJOB_PATH: `${dirname(node)}:/usr/bin:/bin` }),
  };
  const names = ['WEBJOB_VIEW_SOCKET', 'WEBJOB_VIEW_FCGID', 'WEBJOB_VIEW_GROUP_FILE', ...Object.keys(defines)];
  return {
    folder,
    pid: worker?.child.pid,
    complaints: worker?.complaints ?? (() => ''),
    lines: `${names.map((name) => `UnDefine ${name}\n`).join('')}${Object.entries(defines)
      .map(([name, value]) => `Define ${name} ${value}\n`)
      .join('')}Include "${join(project, 'apache', 'webjob-view.conf')}"\n`,
    stop: async () => {
      if (!worker) return;
      worker.child.kill('SIGTERM');
      await worker.ended;
    },
  };
}

const sha1 = (text: string): string => createHash('sha1').update(text).digest('base64');

/** A user that is neither root nor the web user. */
export function findReader(): { uid: number; gid: number } | undefined {
  const web = findWebUser();
  for (const name of ['nobody', 'daemon', 'bin']) {
    const [, , uid, gid] =
      readFileSync('/etc/passwd', 'utf8')
        .split('\n')
        .find((line) => line.startsWith(`${name}:`))
        ?.split(':') ?? [];
    if (uid && gid && Number(uid) !== web?.uid) return { uid: Number(uid), gid: Number(gid) };
  }
  return web;
}

interface Worker {
  child: ChildProcess;
  ended: Promise<unknown>;
  complaints(): string;
}

function startWorker(node: string, args: readonly string[], user: { uid: number; gid: number } | undefined): Worker {
  const child = spawn(node, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(user && { uid: user.uid, gid: user.gid }),
    env: { PATH: `${dirname(node)}:/usr/bin:/bin`, NODE_OPTIONS: '--max-old-space-size=56 --max-semi-space-size=4' },
    cwd: '/',
  });
  let complaints = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk;
  });
  return { child, ended: new Promise((resolve) => child.once('exit', resolve)), complaints: () => complaints };
}

async function untilThere(socket: string, child: ChildProcess, complaints: () => string): Promise<void> {
  for (const deadline = Date.now() + START_LIMIT_MS; !existsSync(socket); await sleep(10))
    if (Date.now() > deadline || child.exitCode !== null) throw new Error(`the view does not listen: ${complaints()}`);
}
