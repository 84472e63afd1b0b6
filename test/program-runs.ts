// How tests run the built webjobctl and webjob: to their end, in a process that runs one of them again and again (program-host.ts), or
// in a process of its own where a run needs what only that has. With WEBJOB_TEST_PROCESSES in the environment every run has one.
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostedEnd, HostedRun } from './program-host.ts';

const HOST = join(import.meta.dirname, 'program-host.ts');
const built = (name: string): string => join(import.meta.dirname, '..', 'dist', name);
export const WEBJOBCTL = built('webjobctl');
export const WEBJOB = built('webjob');

export interface RunOptions {
  /** Written to its stdin; without it there is nothing to read. */
  input?: string;
  /** Only this, and not what the test has; undefined takes a variable away. */
  environment?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Another user's uid and gid; only root may say so. */
  user?: { uid: number; gid: number };
  /** When it is killed, whatever it does, and the run rejected. */
  timeLimitMs?: number;
}

export interface RunEnd {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: Buffer;
}

/** What Node and the loader of programs read once, at the start. */
const READ_AT_START = /^(?:NODE_.*|LANG(?:UAGE)?|LC_.*|FORCE_COLOR|LD_PRELOAD)$/;
const TIME_LIMIT_MS = 120_000;

interface Host {
  child: ChildProcess;
  /** What it and the programs that its runs start write to. */
  output: readonly [stdout: number, stderr: number];
  isBusy: boolean;
}

const hosts = new Map<string, Host>();

/** Runs a built program to its end, whatever its exit code. */
export async function runProgram(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunEnd> {
  return needsItsOwn(program, options)
    ? await runAlone(program, args, options)
    : await runHosted(program, args, options);
}

/** A second run at the same time is a second process. */
function needsItsOwn(program: string, { input, user, environment = process.env }: RunOptions): boolean {
  return (
    (program !== WEBJOBCTL && program !== WEBJOB) ||
    hosts.get(program)?.isBusy === true ||
    input !== undefined ||
    user !== undefined ||
    process.env.WEBJOB_TEST_PROCESSES !== undefined ||
    Object.keys(environment).some((name) => READ_AT_START.test(name) && environment[name] !== process.env[name])
  );
}

async function runHosted(program: string, args: readonly string[], options: RunOptions): Promise<RunEnd> {
  const host = hosts.get(program) ?? startHost(program);
  host.isBusy = true;
  host.child.ref();
  host.child.channel?.ref();
  try {
    const given = Object.entries(options.environment ?? process.env);
    const environment = Object.fromEntries(given.filter((pair): pair is [string, string] => pair[1] !== undefined));
    const cwd = options.cwd ?? process.cwd();
    const run: HostedRun = { args, environment, cwd, umask: process.umask() };
    const { code, isLast } = await ask(program, host, run, options.timeLimitMs ?? TIME_LIMIT_MS);
    const [stdout, stderr] = host.output.map(takeAll);
    if (isLast) endHost(program);
    return { code, signal: null, stdout: stdout as Buffer, stderr: stderr as Buffer };
  } finally {
    host.isBusy = false;
    host.child.unref();
    host.child.channel?.unref();
  }
}

function startHost(program: string): Host {
  const output = [openScratch(), openScratch()] as const;
  const child = fork(HOST, [program, process.argv[1] ?? ''], {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', ...output, 'ipc'],
  });
  const host = { child, output, isBusy: true };
  if (hosts.size === 0) process.once('exit', () => [...hosts.keys()].forEach(endHost));
  hosts.set(program, host);
  return host;
}

/** A file without a name, of which every writer writes at its end. */
function openScratch(): number {
  const path = join(tmpdir(), `webjob-host-${process.pid}-${randomUUID()}`);
  const descriptor = openSync(path, 'ax+', 0o600);
  rmSync(path);
  return descriptor;
}

function takeAll(descriptor: number): Buffer {
  const bytes = Buffer.alloc(fstatSync(descriptor).size);
  for (let at = 0; at < bytes.length; ) at += readSync(descriptor, bytes, at, bytes.length - at, at);
  ftruncateSync(descriptor);
  return bytes;
}

function endHost(program: string): void {
  const host = hosts.get(program);
  if (host?.child.connected) host.child.disconnect();
  for (const descriptor of host?.output ?? []) closeSync(descriptor);
  hosts.delete(program);
}

function ask(program: string, { child }: Host, run: HostedRun, timeLimitMs: number): Promise<HostedEnd> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => fail(`did not end within ${timeLimitMs / 1000} s`), timeLimitMs);
    const fail = (what: string): void => {
      settle();
      child.kill('SIGKILL');
      endHost(program);
      reject(new Error(`${program} ${run.args.join(' ')} ${what}`));
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
  // It may end without having read.
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(options.input);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) =>
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err) }),
    );
  });
}
