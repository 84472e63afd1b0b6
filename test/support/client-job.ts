// The built client as a user runs it, with a webjob.conf and a TempDirectory that can be inspected
// afterwards.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runProgram, WEBJOB } from './program-runs.ts';
import { waitFor } from './wait.ts';

export { WEBJOB };

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface Running {
  child: ChildProcess;
  ended: Promise<Ended>;
}

export interface RunOptions {
  /** Additions to the environment of this process; undefined removes a variable. */
  environment?: Record<string, string | undefined>;
  /** The working directory. */
  cwd?: string;
  /** When it is killed, whatever it does. */
  timeLimitMs?: number;
  /** A prefix of the command: strace, or a shell that sets limits. */
  wrapper?: readonly string[];
}

const TIME_LIMIT_MS = 120_000;

/**
 * Starts the client without waiting for it, because a server it talks to may run in this very
 * process.
 */
function startWebjob(args: readonly string[], options: RunOptions = {}): Running {
  return start([...(options.wrapper ?? []), process.execPath, WEBJOB, ...args], options);
}

/** Runs a command that webjob told its user to type, in a shell that knows `webjob`. */
export async function paste(line: string, options: RunOptions = {}): Promise<Ended> {
  const script = 'webjob() { "$node" "$webjob" "$@"; }; eval "$line"';
  const environment = { ...options.environment, node: process.execPath, webjob: WEBJOB, line };
  return await start(['/bin/sh', '-c', script], { ...options, environment }).ended;
}

function start([program = '', ...args]: readonly string[], options: RunOptions): Running {
  const child = spawn(program, args, {
    env: { ...process.env, ...options.environment },
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: options.timeLimitMs ?? TIME_LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  const chunks: { out: Buffer[]; err: Buffer[] } = { out: [], err: [] };
  child.stdout.on('data', (chunk: Buffer) => chunks.out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => chunks.err.push(chunk));
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const text = (parts: Buffer[]): string => Buffer.concat(parts).toString('latin1');
      resolve({ code, signal, stdout: text(chunks.out), stderr: text(chunks.err) });
    });
  });
  return { child, ended };
}

export async function runWebjob(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const { wrapper, environment, ...more } = options;
  if (wrapper) return await startWebjob(args, options).ended;
  const whole = { ...more, timeLimitMs: more.timeLimitMs ?? TIME_LIMIT_MS };
  const ran = await runProgram(WEBJOB, args, { ...whole, environment: { ...process.env, ...environment } });
  return { ...ran, stdout: ran.stdout.toString('latin1'), stderr: ran.stderr.toString('latin1') };
}

export interface Client {
  /** Contains everything below; removed by remove(). */
  root: string;
  temp: string;
  conf: string;
  /** Writes webjob.conf: ClientId, TempDirectory and the given settings. */
  configure(controls: Record<string, string>): void;
  /** Fetches and runs a program and uploads its output. */
  execute(command: readonly string[], options?: RunOptions): Promise<Ended>;
  start(command: readonly string[], options?: RunOptions): Running;
  /** The contents of TempDirectory. */
  left(): string[];
  remove(): void;
}

export function makeClient(controls: Record<string, string> = {}): Client {
  const root = mkdtempSync(join(tmpdir(), 'webjob-client-'));
  const temp = join(root, 'temp');
  const conf = join(root, 'webjob.conf');
  mkdirSync(temp, { mode: 0o755 });
  const words = (command: readonly string[]): string[] => ['--execute', '--file', conf, ...command];
  const start = (command: readonly string[], options?: RunOptions): Running => startWebjob(words(command), options);
  const client: Client = {
    root,
    temp,
    conf,
    start,
    configure: (next) => {
      const lines = Object.entries({ ClientId: 'client1', TempDirectory: temp, ...next });
      writeFileSync(conf, lines.map(([key, value]) => `${key}=${value}\n`).join(''), { mode: 0o600 });
    },
    execute: async (command, options) => await runWebjob(words(command), options),
    left: () => readdirSync(temp, { recursive: true }).map(String).sort(),
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
  client.configure(controls);
  return client;
}

/**
 * The directories in the hint of a PUT without SpoolDirectory: the one in TempDirectory, and the
 * one of the job in it. Throws Error.
 */
export function findKeptJob(stderr: string): { command: string; folder: string; job: string } {
  const [, command = '', folder = ''] = /(webjob --flush (\S+\/webjob-\w{6}) --file \S+)\n$/.exec(stderr) ?? [];
  const [job, ...more] = command === '' ? [] : readdirSync(folder);
  if (job === undefined || more.length > 0) throw new Error(`no command that delivers one job: ${stderr}`);
  return { command, folder, job: join(folder, job) };
}

/** Polls until `condition` is true. Throws Error after a minute, or when `running` ends first. */
export async function until(condition: () => boolean, what: string, running?: Running): Promise<void> {
  let ended: Ended | undefined;
  running?.ended.then(
    (outcome) => {
      ended = outcome;
    },
    () => {},
  );
  await waitFor(what, condition, () => ended && `webjob ended: ${JSON.stringify(ended)}`);
}
