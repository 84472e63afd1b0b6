// How tests run the built programs: in a process that runs one of them repeatedly
// (program-host.ts), or in a process of its own where a run needs that. With WEBJOB_TEST_PROCESSES
// in the environment every run has one.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { COMPILED_SOURCES } from '../../scripts/test-compiled.ts';
import { noteProcessorTime } from '../../scripts/test-leftovers.ts';
import type { HostedEnd, HostedRun } from './program-host.ts';

const HOST = join(import.meta.dirname, 'program-host.ts');
const built = (name: string): string => join(import.meta.dirname, '..', '..', 'dist', name);
export const WEBJOBCTL = built('webjobctl');
export const WEBJOB = built('webjob');

export interface RunOptions {
  /** Written to its stdin; without it stdin is empty. */
  input?: string;
  /** The whole environment, instead of the test's; undefined removes a variable. */
  environment?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Another user's uid and gid; only for root. */
  user?: { uid: number; gid: number };
  /** When it is killed, whatever it does, and the run is rejected. */
  timeLimitMs?: number;
}

export interface RunEnd {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: Buffer;
}

/** Variables that Node and the loader of programs read only at the start. */
const READ_AT_START = /^(?:NODE_.*|LANG(?:UAGE)?|LC_.*|FORCE_COLOR|LD_PRELOAD)$/;
const TIME_LIMIT_MS = 120_000;

/** A program, and how the process that runs it is started. */
export interface Hosting {
  program: string;
  /** Another user's uid and gid; only for root. */
  user?: { uid: number; gid: number } | undefined;
  /** A prefix of the command that starts the process. */
  within?: readonly string[] | undefined;
}

interface Host {
  child: ChildProcess;
  /** The file from which its runs read. */
  input: number;
  /** The files to which the process and the programs of its runs write. */
  output: readonly [stdout: number, stderr: number];
  isBusy: boolean;
}

const hosts = new Map<string, Host>();
/** Linux has no process with such a high id. */
let lastPid = 1 << 22;

/** Runs a built program to its end, whatever its exit code. */
export async function runProgram(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunEnd> {
  return needsItsOwn(program, options)
    ? await runAlone(program, args, options)
    : await runHosted(program, args, options);
}

function needsItsOwn(program: string, { input, user, environment }: RunOptions): boolean {
  return (
    (program !== WEBJOBCTL && program !== WEBJOB) ||
    input !== undefined ||
    user !== undefined ||
    !canBeHosted({ program }, environment ?? process.env)
  );
}

/** A second run at the same time needs a second process. */
export function canBeHosted(hosting: Hosting, environment: NodeJS.ProcessEnv): boolean {
  return (
    process.env.WEBJOB_TEST_PROCESSES === undefined &&
    hosts.get(keyOf(hosting))?.isBusy !== true &&
    !Object.keys(environment).some((name) => READ_AT_START.test(name) && environment[name] !== process.env[name])
  );
}

async function runHosted(program: string, args: readonly string[], options: RunOptions): Promise<RunEnd> {
  return await host({ program }, args, { ...options, environment: options.environment ?? process.env });
}

/**
 * Runs a program to its end in the process for such runs. Rejects when it does not end in time, or
 * ends that process.
 */
export async function host(
  hosting: Hosting,
  args: readonly string[],
  options: RunOptions & { environment: NodeJS.ProcessEnv; body?: Buffer },
): Promise<RunEnd> {
  const host = hosts.get(keyOf(hosting)) ?? startHost(hosting);
  host.isBusy = true;
  host.child.ref();
  host.child.channel?.ref();
  try {
    const given = Object.entries(options.environment);
    const environment = Object.fromEntries(given.filter((pair): pair is [string, string] => pair[1] !== undefined));
    const cwd = options.cwd ?? process.cwd();
    if (options.body !== undefined) putInput(host, options.body);
    const run: HostedRun = { args, environment, cwd, umask: process.umask(), pid: ++lastPid };
    const { code, isLast } = await ask(hosting, host, run, options.timeLimitMs ?? TIME_LIMIT_MS);
    const [stdout, stderr] = host.output.map(takeAll);
    if (isLast) endHost(keyOf(hosting));
    return { code, signal: null, stdout: stdout as Buffer, stderr: stderr as Buffer };
  } finally {
    host.isBusy = false;
    host.child.unref();
    host.child.channel?.unref();
  }
}

function keyOf({ program, user, within = [] }: Hosting): string {
  return [program, user?.uid, user?.gid, ...within].join('\0');
}

function startHost(hosting: Hosting): Host {
  const { program, user, within = [] } = hosting;
  const output = [openScratch(), openScratch()] as const;
  const input = openScratch('wx+');
  const [command = '', ...words] = [
    ...within,
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    HOST,
    program,
    ...(user ? [String(user.uid), String(user.gid)] : []),
  ];
  const env = { ...process.env, ...COMPILED_SOURCES };
  const child = spawn(command, words, { stdio: [input, ...output, 'ipc'], env });
  const host = { child, input, output, isBusy: true };
  if (hosts.size === 0) process.once('exit', endHosts);
  hosts.set(keyOf(hosting), host);
  return host;
}

/** Children that have ended by now are counted among those that this process has waited for. */
function endHosts(): void {
  for (const [key, { child }] of hosts) {
    noteProcessorTime(process.argv[1] ?? '', child.pid);
    endHost(key);
  }
}

/** A file without a name; by default every write appends to it. */
function openScratch(flags = 'ax+'): number {
  const path = join(tmpdir(), `webjob-host-${process.pid}-${randomUUID()}`);
  const descriptor = openSync(path, flags, 0o600);
  rmSync(path);
  return descriptor;
}

/** A run continues to read where the previous one has ended. */
function putInput({ child, input }: Host, body: Buffer): void {
  const at = Number(/^pos:\s*(\d+)/.exec(readFileSync(`/proc/${child.pid}/fdinfo/0`, 'latin1'))?.[1]);
  ftruncateSync(input, at);
  for (let done = 0; done < body.length; ) done += writeSync(input, body, done, body.length - done, at + done);
}

function takeAll(descriptor: number): Buffer {
  const bytes = Buffer.alloc(fstatSync(descriptor).size);
  for (let at = 0; at < bytes.length; ) at += readSync(descriptor, bytes, at, bytes.length - at, at);
  ftruncateSync(descriptor);
  return bytes;
}

function endHost(key: string): void {
  const host = hosts.get(key);
  if (host?.child.connected) host.child.disconnect();
  for (const descriptor of host ? [host.input, ...host.output] : []) closeSync(descriptor);
  hosts.delete(key);
}

function ask(hosting: Hosting, { child, output }: Host, run: HostedRun, timeLimitMs: number): Promise<HostedEnd> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => fail(`did not end within ${timeLimitMs / 1000} s`), timeLimitMs);
    const fail = (what: string): void => {
      settle();
      child.kill('SIGKILL');
      const said = takeAll(output[1]).toString();
      endHost(keyOf(hosting));
      reject(new Error(`${hosting.program} ${run.args.join(' ')} ${what}: ${said}`));
    };
    const onExit = (code: number | null, signal: string | null): void => fail(`ended its host: ${code ?? signal}`);
    const onMessage = (end: HostedEnd): void => {
      settle();
      resolve(end);
    };
    const settle = (): void => {
      clearTimeout(timer);
      child.off('exit', onExit).off('message', onMessage);
    };
    child.on('exit', onExit).on('message', onMessage);
    child.send(run);
  });
}

function runAlone(program: string, args: readonly string[], options: RunOptions): Promise<RunEnd> {
  const child = spawn(process.execPath, [program, ...args], {
    env: options.environment ?? process.env,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    timeout: options.timeLimitMs ?? TIME_LIMIT_MS,
    killSignal: 'SIGKILL',
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    ...options.user,
  });
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk));
  // It may have ended without reading.
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(options.input);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) =>
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err) }),
    );
  });
}
