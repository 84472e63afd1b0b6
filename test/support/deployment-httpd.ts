// An httpd with a configuration made by the test, for deployments that scripts/httpd.ts does not
// cover: other layouts, several virtual hosts, a balancer. Each is a process group of its own on
// 127.0.0.1.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { obtainHttpd } from '../../scripts/httpd-package.ts';
import { noteGroup } from '../../scripts/test-leftovers.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { isServing } from './deployment-wire.ts';

export interface Apache {
  ports: number[];
  pid: number;
  /**
   * Runs httpd on the same configuration: `-t`, `-k graceful`. Returns its exit code and output.
   */
  control(...args: string[]): { code: number | null; said: string };
  /** All errors that httpd and the scripts logged. */
  complaints(): string;
  stop(): Promise<void>;
  /** Kills httpd and all of its scripts at this moment, like a power failure. */
  kill(): Promise<void>;
}

export interface ApacheOptions {
  /** Contains everything of this httpd, including node for its scripts. */
  serverRoot: string;
  configurationFile: string;
  errorLog: string;
  /** The number of free ports that it listens on. */
  portCount: number;
  /** The ports of a killed httpd that comes back. */
  ports?: number[] | undefined;
  /** Writes the configuration for these ports. */
  configure(ports: number[]): void;
  environment?: Record<string, string>;
}

const { binary, modulesDirectory, libraryPath } = obtainHttpd();
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 5_000;

/** What an httpd of the tests needs on every machine besides its modules. It writes to `run`. */
export function formatBasics(run: string, ports: number[], modules: string): string {
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  return `
${formatModules(modules)}
ServerName 127.0.0.1
${ports.map((port) => `Listen 127.0.0.1:${port}`).join('\n')}
PidFile "${run}/httpd.pid"
DefaultRuntimeDir "${run}"
Mutex "file:${run}" default
ScriptSock "${run}/cgid"
ErrorLog "${run}/error.log"
${user ? `User ${user.name}\nGroup #${user.gid}` : ''}
<Directory />
  AllowOverride None
  Require all denied
</Directory>
`;
}

/** A LoadModule line for each of the names that is not built in. */
export function formatModules(names: string): string {
  return names
    .split(' ')
    .map((name) => [name, join(modulesDirectory, `mod_${name}.so`)] as const)
    .filter(([, path]) => existsSync(path))
    .map(([name, path]) => `LoadModule ${name}_module "${path}"`)
    .join('\n');
}

/** A new directory that the web user may enter, without links in its path. */
export function makeRoot(): string {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'webjob-deployment-')));
  spawnSync('chmod', ['755', root]);
  return root;
}

/**
 * Starts httpd and waits until it answers on every port. Throws Error with its log when it does
 * not.
 */
export async function startApache(options: ApacheOptions): Promise<Apache> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(options, options.ports ?? (await findFreePorts(options.portCount)));
    } catch (error) {
      // Another process may have taken a port between its choice and the start.
      if (attempt === 3 || !String(error).includes('could not bind')) throw error;
    }
  }
}

async function startOnce(options: ApacheOptions, ports: number[]): Promise<Apache> {
  const { serverRoot, configurationFile, errorLog } = options;
  options.configure(ports);
  const args = ['-d', serverRoot, '-f', configurationFile];
  const env = {
    PATH: `${placeNode(serverRoot)}:/usr/bin:/bin`,
    ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
    ...options.environment,
  };
  const child = spawn(binary, [...args, '-DFOREGROUND'], { detached: true, stdio: ['ignore', 'ignore', 'pipe'], env });
  noteGroup(child.pid);
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  const complaints = (): string => said + (existsSync(errorLog) ? readFileSync(errorLog, 'utf8') : '');
  if (!(await answers(child, ports))) {
    await stopGroup(child, ['SIGTERM', 'SIGKILL']);
    throw new Error(`httpd did not start: ${complaints()}`);
  }
  return {
    ports,
    complaints,
    pid: child.pid ?? 0,
    control: (...more) => {
      const ended = spawnSync(binary, [...args, ...more], { encoding: 'utf8', env });
      return { code: ended.status, said: ended.stdout + ended.stderr };
    },
    stop: () => stopGroup(child, ['SIGTERM', 'SIGKILL']),
    kill: () => stopGroup(child, ['SIGKILL']),
  };
}

/**
 * A directory with `node` that the web user may enter, because the checkout of the tests may be
 * closed to it.
 */
function placeNode(serverRoot: string): string {
  const folder = join(serverRoot, 'node-bin');
  const copy = join(folder, 'node');
  if (existsSync(copy)) return folder;
  mkdirSync(folder, { mode: 0o755 });
  try {
    linkSync(realpathSync(process.execPath), copy);
  } catch {
    copyFileSync(process.execPath, copy);
  }
  return folder;
}

async function answers(child: ChildProcess, ports: number[]): Promise<boolean> {
  for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline; await sleep(10)) {
    if (child.exitCode !== null || child.signalCode !== null) return false;
    if ((await Promise.all(ports.map(isServing))).every(Boolean)) return true;
  }
  return false;
}

/** Ends the whole group: each signal five seconds after the previous one, for what is left. */
async function stopGroup(child: ChildProcess, signals: NodeJS.Signals[]): Promise<void> {
  const { pid } = child;
  if (pid === undefined) return;
  for (const signal of signals) {
    if (!signalGroup(pid, signal)) return;
    for (const deadline = Date.now() + STOP_LIMIT_MS; Date.now() < deadline; await sleep(10)) {
      if (!signalGroup(pid, 0)) return;
    }
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-pid, signal);
  } catch {
    return false;
  }
}
