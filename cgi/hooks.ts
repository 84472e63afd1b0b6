// The commands that take part in a request: a GetHook makes what a GET serves, a PutHook sees an upload before it is announced. Both run
// to their end inside the request, in a process group of their own that does not outlive it (docs/protocol.md, section 4).
import { closeSync, fstatSync, openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { GroupPaths } from 'webjob-locker';
import { type Exchange, tokenFacts } from './exchange.ts';
import { logHook } from './log.ts';
import { Refusal } from './refusal.ts';
import { expandCommand } from './tokens.ts';

/** What a command we run sees of the world besides its command line. */
export const COMMAND_ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };

/** The most that is kept of what a hook says besides its payload, in bytes; one that says more is ended. */
const MAX_DIVERTED_BYTES = 64 * 1024;
/** The unit of `ulimit -f` (POSIX). */
const BLOCK_BYTES = 512;

/**
 * Before every command line: ends the group when this process is gone, because httpd kills a script that lets it wait too long, and nobody
 * would be left to keep the time limit. The outer parentheses hide it from a `wait` in the command line.
 */
const WATCH = '( (while kill -0 $PPID; do sleep 1; done; kill -9 0) >&- 2>&- & )\n';

/**
 * Runs the GetHook and returns its stdout, an open file without a name. `file` is the path of the command it may transform, empty when
 * there is none. Throws Refusal 551, and 550 when SpoolDirectory cannot be used.
 */
export function makePayload(exchange: Exchange, file: string): { fd: number; size: number } {
  const { spoolDirectory, getHookCommandLine, getHookOutputLimit } = exchange.settings;
  const { reader, writer } = openSpool(spoolDirectory);
  try {
    // The shell's limit holds for whatever the hook starts, too; one block more, so that reaching it can be told.
    const blocks = Math.ceil(getHookOutputLimit / BLOCK_BYTES) + 1;
    const command = expandCommand(getHookCommandLine, tokenFacts(exchange), { file });
    runHook(exchange, 'GetHook', `ulimit -f ${blocks} || exit 126\n${command}`, writer);
    const { size } = fstatSync(reader);
    if (size > getHookOutputLimit) throw new Refusal(551, 'GetHook printed more than GetHookOutputLimit');
    return { fd: reader, size };
  } catch (error) {
    closeSync(reader);
    throw error;
  } finally {
    closeSync(writer);
  }
}

/** A new file that is private and has no name any more. Two descriptors: the hook's shares its offset with the hook. */
function openSpool(folder: string): { reader: number; writer: number } {
  const path = join(folder, `get-hook-${process.pid}-${process.hrtime.bigint()}`);
  try {
    const writer = openSync(path, 'wx', 0o600);
    const reader = openSync(path, 'r');
    unlinkSync(path);
    return { reader, writer };
  } catch (error) {
    throw new Refusal(550, `SpoolDirectory: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** Runs the PutHook on the complete files of an upload. Throws Refusal 551. */
export function inspectUpload(exchange: Exchange, paths: GroupPaths): void {
  const { putHookCommandLine, putHookLogDivertedOutput } = exchange.settings;
  const command = expandCommand(putHookCommandLine, tokenFacts(exchange), paths);
  runHook(exchange, 'PutHook', command, putHookLogDivertedOutput ? 'pipe' : 'ignore');
}

/** Runs in a group of its own, so that nothing it started is left when it ends or is ended. */
function runHook(
  exchange: Exchange,
  name: 'GetHook' | 'PutHook',
  commandLine: string,
  stdout: number | 'pipe' | 'ignore',
): void {
  const { spawnSync } = process.getBuiltinModule('node:child_process');
  const { settings } = exchange;
  const key = name === 'GetHook' ? 'getHook' : 'putHook';
  const seconds = settings[`${key}TimeLimit`];
  const options = {
    env: COMMAND_ENVIRONMENT,
    cwd: '/',
    detached: true,
    timeout: seconds * 1000,
    killSignal: 'SIGKILL',
    maxBuffer: MAX_DIVERTED_BYTES,
  } as const;
  const stderr = settings[`${key}LogDivertedOutput`] ? 'pipe' : 'ignore';
  const ended = spawnSync('/bin/sh', ['-c', WATCH + commandLine], { ...options, stdio: ['ignore', stdout, stderr] });
  endGroup(ended.pid);
  for (const [event, said] of Object.entries({ out: ended.stdout, err: ended.stderr })) {
    for (const line of said?.toString().split('\n').filter(Boolean) ?? [])
      logHook(exchange, name, ended.pid, event, line);
  }
  const failure = describeFailure(ended, settings[`${key}Status`], seconds);
  logHook(exchange, name, ended.pid, String(ended.status ?? ended.signal), failure ?? 'Success');
  if (failure !== undefined) throw new Refusal(551, `${name} ${failure}`);
}

function describeFailure(
  ended: { status: number | null; signal: string | null; error?: NodeJS.ErrnoException },
  expected: number,
  seconds: number,
): string | undefined {
  const { code } = ended.error ?? {};
  if (code === 'ETIMEDOUT') return `took longer than ${seconds} seconds`;
  if (code === 'ENOBUFS') return `said more than ${MAX_DIVERTED_BYTES} bytes`;
  if (code !== undefined) return `could not be started: ${code}`;
  if (ended.signal !== null) return `was ended by ${ended.signal}`;
  return ended.status === expected ? undefined : `exited with ${ended.status} in place of ${expected}`;
}

function endGroup(pid: number): void {
  try {
    if (pid > 0) process.kill(-pid, 'SIGKILL');
  } catch {
    // Nothing was left of it.
  }
}
