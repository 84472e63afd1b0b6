// A private httpd for one site, in a process group of its own, that listens on 127.0.0.1 only.
// Includes the shipped apache/webjob.conf.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findFreePorts } from './free-ports.ts';
import { type HttpdProgram, obtainFcgid, obtainHttpd } from './httpd-package.ts';
import type { Site } from './site.ts';
import { noteGroup } from './test-leftovers.ts';
import { findWebUser, openProgram } from './web-user.ts';

export interface HttpdOptions {
  site: Site;
  /** `event` runs scripts through mod_cgid (one socket), `prefork` through mod_cgi (pipes). */
  mpm: 'event' | 'prefork';
  /** The Node that `#!/usr/bin/env node` finds; by default the running one. */
  node?: string;
  /** Key and certificate for a TLS-only server. */
  tls?: { keyFile: string; certificateFile: string };
  /** Additional modules, without `mod_` and `.so`. */
  modules?: string[];
  /** Lines before and after the Include of the shipped file. */
  before?: string;
  after?: string;
  /** A second port with its configuration, such as a different virtual host. */
  second?: (port: number) => string;
  program?: HttpdProgram;
  /** The port of a killed server that is restarted; by default a free port. */
  port?: number;
}

export interface Server {
  /** Scheme, host and port: `http://127.0.0.1:34567`. */
  url: string;
  port: number;
  pid: number;
  errorLog: string;
  stop(): Promise<void>;
}

export interface HttpdServer extends Server {
  /** The port of `second`; unused without it. */
  secondPort: number;
}

type Ports = readonly [first: number, second: number];

const MODULES = 'authn_core authn_file authz_core authz_user auth_basic alias env reqtimeout'.split(' ');
const START_LIMIT_MS = 60_000;
/**
 * The minimum number of attempts, because on a busy machine the time limit may leave room for only
 * one.
 */
const START_LOOKS = 100;
const STOP_LIMIT_MS = 5_000;

/**
 * Starts httpd and waits until it answers. Throws an Error with the end of the error log when it
 * does not.
 */
export async function startHttpd(options: HttpdOptions): Promise<HttpdServer> {
  for (let attempt = 1; ; attempt++) {
    try {
      const [first = 0, second = 0] = await findFreePorts(2);
      return await startOnce(options, [options.port ?? first, second]);
    } catch (error) {
      // Another process may have taken the port meanwhile.
      if (attempt === 3 || !String(error).includes('could not bind')) throw error;
    }
  }
}

async function startOnce(options: HttpdOptions, ports: Ports): Promise<HttpdServer> {
  const [port, secondPort] = ports;
  const program = options.program ?? obtainFor(options);
  const run = join(options.site.root, `httpd-${options.mpm}`);
  mkdirSync(run, { recursive: true, mode: 0o755 });
  const errorLog = join(run, 'error.log');
  const configuration = join(run, 'httpd.conf');
  writeFileSync(configuration, formatConfiguration(options, program, run, ports));
  const child = spawn(program.binary, ['-d', run, '-f', configuration, '-DFOREGROUND'], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH: `${dirname(openProgram(realpathSync(options.node ?? process.execPath), () => run))}:/usr/bin:/bin`,
      ...(program.libraryPath && { LD_LIBRARY_PATH: program.libraryPath }),
    },
  });
  noteGroup(child.pid);
  let complaints = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    complaints += chunk;
  });
  try {
    await untilListening(child, port, join(run, 'pid'));
  } catch (error) {
    await stopGroup(child);
    const log = existsSync(errorLog) ? readFileSync(errorLog, 'utf8').slice(-2000) : '';
    throw new Error(`httpd did not start: ${complaints}${log}`, { cause: error });
  }
  const url = `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}`;
  const pid = child.pid ?? 0;
  return { url, port, secondPort, pid, errorLog, stop: () => stopGroup(child) };
}

/** mod_fcgid has a package of its own, which an httpd that loads it needs. */
function obtainFor({ modules = [] }: HttpdOptions): HttpdProgram {
  if (!modules.includes('fcgid')) return obtainHttpd();
  const program = obtainFcgid();
  if (!program) throw new Error('this httpd has no mod_fcgid; install libapache2-mod-fcgid');
  return program;
}

function formatConfiguration(options: HttpdOptions, program: HttpdProgram, run: string, ports: Ports): string {
  const { site, mpm, tls } = options;
  const [port, secondPort] = ports;
  const wanted = [
    `mpm_${mpm}`,
    mpm === 'event' ? 'cgid' : 'cgi',
    ...MODULES,
    ...(tls ? ['ssl'] : []),
    ...(options.modules ?? []),
  ];
  const loadable = wanted.filter((name) => existsSync(join(program.modulesDirectory, `mod_${name}.so`)));
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  return `
${loadable.map((name) => `LoadModule ${name}_module "${join(program.modulesDirectory, `mod_${name}.so`)}"`).join('\n')}
ServerName 127.0.0.1
Listen 127.0.0.1:${port}
PidFile "${run}/pid"
DefaultRuntimeDir "${run}"
Mutex "file:${run}" default
ErrorLog "${run}/error.log"
LogFormat "%h %u \\"%r\\" %>s" short
CustomLog "${run}/access.log" short
${mpm === 'event' ? `ScriptSock "${run}/cgid"` : ''}
${user ? `User ${user.name}\nGroup #${user.gid}` : ''}
<Directory />
  AllowOverride None
  Require all denied
</Directory>
${tls ? `SSLEngine on\nSSLCertificateFile "${tls.certificateFile}"\nSSLCertificateKeyFile "${tls.keyFile}"\nSSLSessionCache none` : ''}
Define WEBJOB_CGI_DIRECTORY "${site.cgiDirectory}"
Define WEBJOB_PROPERTIES_FILE "${site.propertiesFile}"
${options.before ?? ''}
Include "${join(import.meta.dirname, '..', 'apache', 'webjob.conf')}"
${options.after ?? ''}
${options.second ? `Listen 127.0.0.1:${secondPort}\n${options.second(secondPort)}` : ''}
`;
}

/**
 * httpd's pid file shows that it has the port: another server that answers there may be that of
 * another test.
 */
async function untilListening(child: ChildProcess, port: number, pidFile: string): Promise<void> {
  const deadline = Date.now() + START_LIMIT_MS;
  for (let looks = 0; looks < START_LOOKS || Date.now() < deadline; looks += 1, await sleep(10)) {
    if (hasEnded(child)) throw new Error('it ended');
    if (readPid(pidFile) === child.pid && (await canConnect(port))) return;
  }
  throw new Error('it does not listen');
}

function readPid(path: string): number | undefined {
  try {
    return Number(readFileSync(path, 'latin1'));
  } catch {
    return undefined;
  }
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });
}

/**
 * Ends httpd, and then the rest of its group: SIGTERM, and SIGKILL after five seconds. The group is
 * not ended at once, because httpd would restart a mod_cgid that ended first, which takes two
 * seconds.
 */
async function stopGroup(child: ChildProcess): Promise<void> {
  const { pid } = child;
  if (pid === undefined) return;
  child.kill('SIGTERM');
  await until(() => hasEnded(child), STOP_LIMIT_MS);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (!signalGroup(pid, signal)) return;
    if (await until(() => !signalGroup(pid, 0), STOP_LIMIT_MS)) return;
  }
}

/** Waits until a condition is true; false when the time limit is reached. */
async function until(isTrue: () => boolean, limitMs: number): Promise<boolean> {
  for (const deadline = Date.now() + limitMs; Date.now() < deadline; await sleep(10)) {
    if (isTrue()) return true;
  }
  return false;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-pid, signal);
  } catch {
    return false;
  }
}
