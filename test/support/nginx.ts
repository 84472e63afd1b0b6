// nginx in front of httpd, as a site may have it, and instead of httpd, with fcgiwrap to run the
// script.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import {
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { type NginxPrograms, obtainNginx } from '../../scripts/nginx-package.ts';
import type { Site } from '../../scripts/site.ts';
import { noteGroup } from '../../scripts/test-leftovers.ts';
import { findWebUser, openProgram } from '../../scripts/web-user.ts';

const START_LIMIT_MS = 60_000;

/** For `skip`: why it cannot be tried, or false. */
export function isNginxMissing(): string | false {
  return obtainNginx() ? false : 'nginx and fcgiwrap are neither here nor to be had as Debian packages';
}

export interface NginxOptions {
  /** Options of `listen` after the port: `ssl http2`. */
  listen?: string;
  /** Lines of the server. */
  lines?: string;
}

export interface Nginx {
  port: number;
  close(): Promise<void>;
}

/** A separate nginx in front of httpd, with connections that it keeps. */
export async function startNginx(upstream: number, { listen = '', lines = '' }: NginxOptions = {}): Promise<Nginx> {
  const kept = `upstream webjob { server 127.0.0.1:${upstream}; keepalive 8; }`;
  const location = `location / { proxy_pass http://webjob; proxy_http_version 1.1; proxy_set_header Connection ""; }`;
  return await runNginx((port) => `${kept} server { listen 127.0.0.1:${port} ${listen}; ${lines} ${location} }`);
}

/**
 * nginx instead of httpd, with a fcgiwrap of the web user. `format` gets the path of its socket and
 * of Debian's fastcgi_params, and returns the lines of the server.
 */
export async function startFcgiwrap(
  site: Site,
  format: (places: { socket: string; fastcgiParams: string }) => string,
): Promise<Nginx> {
  const programs = obtain();
  const run = join(site.root, 'fcgiwrap');
  mkdirSync(run);
  // The web user may not enter root's checkout.
  const libraries = programs.libraryPath.split(':').filter((folder) => existsSync(folder));
  for (const [from, name] of libraries.flatMap((folder) => readdirSync(folder).map((name) => [folder, name] as const)))
    if (name.startsWith('libfcgi')) copyFileSync(join(from, name), join(run, name));
  copyFileSync(programs.fcgiwrap, join(run, basename(programs.fcgiwrap)));
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  if (user) chownSync(run, user.uid, user.gid);
  const [socket, node] = [join(run, 'socket'), dirname(openProgram(process.execPath, () => run))];
  const wrapper = start(join(run, basename(programs.fcgiwrap)), ['-c', '2', '-s', `unix:${socket}`], {
    env: { PATH: `${node}:/usr/bin:/bin`, LD_LIBRARY_PATH: run },
    ...(user && { uid: user.uid, gid: user.gid }),
  });
  await wrapper.until(() => existsSync(socket), 'fcgiwrap did not start');
  const lines = format({ socket, fastcgiParams: programs.fastcgiParams });
  const nginx = await runNginx((port) => `server { listen 127.0.0.1:${port}; ${lines} }`);
  return {
    port: nginx.port,
    close: async () => {
      await nginx.close();
      await wrapper.stop();
    },
  };
}

function obtain(): NginxPrograms {
  const programs = obtainNginx();
  if (!programs) throw new Error('no nginx and no fcgiwrap');
  return programs;
}

async function runNginx(format: (port: number) => string): Promise<Nginx> {
  const { nginx, libraryPath } = obtain();
  const folder = mkdtempSync(join(tmpdir(), 'webjob-nginx-'));
  const [port = 0] = await findFreePorts(1);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${folder}/${name};`,
  );
  const errorLog = join(folder, 'error.log');
  const configuration = join(folder, 'nginx.conf');
  writeFileSync(
    configuration,
    `daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log ${errorLog};
events {}
http {
  access_log off; ${temporary.join(' ')}
  ${format(port)}
}
`,
  );
  const server = start(nginx, ['-p', folder, '-e', errorLog, '-c', configuration], {
    env: { ...process.env, LD_LIBRARY_PATH: libraryPath },
  });
  const read = (): string => (existsSync(errorLog) ? readFileSync(errorLog, 'utf8') : '');
  await server.until(() => canConnect(port), 'nginx did not start', read);
  return {
    port,
    close: async () => {
      await server.stop();
      rmSync(folder, { recursive: true });
    },
  };
}

interface Started {
  /** Throws Error when it ends early, or takes too long. */
  until(isReady: () => boolean | Promise<boolean>, problem: string, readLog?: () => string): Promise<void>;
  stop(): Promise<void>;
}

function start(program: string, args: readonly string[], options: SpawnOptions): Started {
  const child: ChildProcess = spawn(program, args, { ...options, detached: true, stdio: 'ignore' });
  noteGroup(child.pid);
  let hasEnded = false;
  const ended = new Promise<void>((resolve) => {
    for (const event of ['close', 'error'])
      child.once(event, () => {
        hasEnded = true;
        resolve();
      });
  });
  return {
    until: async (isReady, problem, readLog) => {
      for (const deadline = Date.now() + START_LIMIT_MS; !(await isReady()); await sleep(20))
        if (hasEnded || Date.now() > deadline) throw new Error(`${problem}: ${readLog?.() ?? ''}`);
    },
    stop: async () => {
      // fcgiwrap does not end its children.
      if (!hasEnded && child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
      await ended;
    },
  };
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });
}
