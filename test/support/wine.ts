// Windows as far as Wine is Windows: a private prefix, and the built client in it with a Node for
// Windows.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installPackages } from '../../scripts/debian.ts';
import { obtainNode } from '../../scripts/node-release.ts';
import { type Ended, WEBJOB } from './client-job.ts';

/** The newest release on npm for Windows that starts under the Wine of Debian 12. */
const NODE_RELEASE = '22';
const SET_UP_MS = 300_000;
const RUN_MS = 120_000;

export interface Wine {
  /** The directory of Windows' own programs, by its Linux path. */
  system32: string;
  /** Runs webjob for Windows; `cwd` is a Linux path. */
  run(args: readonly string[], cwd: string, environment?: Record<string, string>): Promise<Ended>;
  stop(): void;
}

/** The Windows path of a file of this machine. */
export function toWindows(path: string): string {
  return `Z:${path.replaceAll('/', '\\')}`;
}

/**
 * Installs Wine and a Node for it if they are missing, and makes a Windows 10. Throws an Error with
 * the reason when that fails.
 */
export function startWine(): Wine {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Error('Wine needs Linux on x64');
  const isThere = (): boolean => spawnSync('wine', ['--version']).status === 0;
  if (!isThere()) installPackages(['wine', 'wine64']);
  if (!isThere()) throw new Error('there is no wine: install the Debian packages wine and wine64');
  const node = obtainNode(NODE_RELEASE, 'windows');
  const prefix = mkdtempSync(join(tmpdir(), 'webjob-wine-'));
  const env = makeEnvironment(prefix);
  endWithUs(env);
  // The Wine server stays, so that it need not start again for every run.
  spawnSync('wineserver', ['--persistent'], { env, stdio: 'ignore', timeout: RUN_MS });
  const stop = (): void => {
    spawnSync('wineserver', ['--kill'], { env, stdio: 'ignore', timeout: RUN_MS });
    rmSync(prefix, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    for (const command of [
      ['wineboot', '--init'],
      ['winecfg', '/v', 'win10'],
    ])
      setUp(command, env);
  } catch (error) {
    stop();
    throw error;
  }
  return {
    system32: join(prefix, 'drive_c', 'windows', 'system32'),
    run: (args, cwd, environment = {}) => runWine([node, toWindows(WEBJOB), ...args], cwd, { ...env, ...environment }),
    stop,
  };
}

/**
 * Wine processes survive the process that started them: a separate one watches this one, and then
 * ends them.
 */
function endWithUs(env: Record<string, string>): void {
  const script = 'tail --pid="$0" -f /dev/null; wineserver --kill; rm -rf "$WINEPREFIX"';
  spawnSync('setsid', ['--fork', 'sh', '-c', script, String(process.pid)], { env, stdio: 'ignore' });
}

/** Neither .NET nor a browser, which Wine would offer to install; no menus; no display. */
function makeEnvironment(prefix: string): Record<string, string> {
  return {
    PATH: process.env.PATH ?? '/usr/bin:/bin',
    HOME: prefix,
    LANG: 'C.UTF-8',
    DISPLAY: '',
    WINEPREFIX: prefix,
    WINEDEBUG: '-all',
    WINEDLLOVERRIDES: 'mscoree=;mshtml=;winemenubuilder.exe=',
    // Node requires a newer Windows than Wine reports.
    NODE_SKIP_PLATFORM_CHECK: '1',
  };
}

function setUp(command: readonly string[], env: Record<string, string>): void {
  process.stderr.write(`webjob: wine ${command.join(' ')}\n`);
  // The services that Wine starts would keep a pipe open.
  const { status, signal } = spawnSync('wine', command, { env, stdio: 'ignore', timeout: SET_UP_MS });
  if (status !== 0) throw new Error(`wine ${command.join(' ')} ends with ${status ?? signal}`);
}

/**
 * Windows programs cannot use a Linux pipe, so output goes to files, which surviving processes may
 * keep open.
 */
async function runWine(words: readonly string[], cwd: string, env: Record<string, string>): Promise<Ended> {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-wine-run-'));
  const paths = ['stdout', 'stderr'].map((name) => join(folder, name));
  const [stdout = 0, stderr = 0] = paths.map((path) => openSync(path, 'w'));
  try {
    const child = spawn('wine', words, {
      cwd,
      env,
      timeout: RUN_MS,
      killSignal: 'SIGKILL',
      stdio: ['ignore', stdout, stderr],
    });
    const [code, signal] = await once(child, 'exit');
    const [out = '', err = ''] = paths.map((path) => readFileSync(path, 'latin1'));
    return { code, signal, stdout: out, stderr: err };
  } finally {
    for (const fd of [stdout, stderr]) closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}
