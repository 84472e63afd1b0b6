// RUN: puts the program into TempDirectory, runs it in a process group of its own, and says how it ended. Its output goes straight
// into files: it may be larger than memory.
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { closeSync, linkSync, renameSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { Failure } from './failure.ts';
import type { ClientSettings } from './settings.ts';

/** How the kid ended, in the record's words. Undefined stands for what does not apply. */
export interface Ending {
  pid: number | undefined;
  status: number | undefined;
  signal: number | undefined;
  reason: string;
  /** Why it could not be started, or was ended by us. */
  error: string | undefined;
}

/** Where the kid's stdout and stderr go: descriptors, which runProgram closes, or ours. */
export type Output = readonly [out: number, err: number] | 'inherit';

const KILL_AFTER_MS = 5_000;

/**
 * Gives a fetched program its name in TempDirectory. The name appears with the whole program behind it; a link or file that
 * waits there is replaced, never followed, or with OverwriteExecutable=N refused. Throws Failure `run`.
 */
export function placeProgram(fetched: string, program: string, overwrite: boolean): void {
  try {
    if (overwrite) {
      renameSync(fetched, program);
    } else {
      linkSync(fetched, program);
      unlinkSync(fetched);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const hint = code === 'EEXIST' ? 'remove it, or set OverwriteExecutable=Y' : undefined;
    throw new Failure('run', `${program} cannot be written: ${code}`, hint);
  }
}

/** Runs a program to its end. Signals sent to us meanwhile are passed on to its whole group. Never throws. */
export async function runProgram(
  settings: ClientSettings,
  program: string,
  args: string[],
  output: Output,
): Promise<Ending> {
  const stdio = output === 'inherit' ? (['inherit', 'inherit', 'inherit'] as const) : (['inherit', ...output] as const);
  const kid = startKid(program, args, [...stdio]);
  const pid = kid instanceof Error ? undefined : kid.pid;
  let timedOut = false;
  const passOn = (signal: NodeJS.Signals): void => signalGroup(pid, signal);
  process.on('SIGINT', passOn).on('SIGTERM', passOn).on('SIGHUP', passOn);
  const timers: NodeJS.Timeout[] = [];
  if (settings.runLimitSeconds > 0) {
    timers.push(
      setTimeout(() => {
        timedOut = true;
        signalGroup(pid, settings.timeoutSignal);
        timers.push(setTimeout(() => signalGroup(pid, 'SIGKILL'), KILL_AFTER_MS));
      }, settings.runLimitSeconds * 1000),
    );
  }
  try {
    if (kid instanceof Error) return neverStarted(kid);
    return await new Promise<Ending>((resolve) => {
      kid.on('error', (error: NodeJS.ErrnoException) => resolve(neverStarted(error)));
      kid.on('exit', (code, signal) =>
        resolve(describeEnding(pid, code, signal, timedOut ? settings.runLimitSeconds : undefined)),
      );
    });
  } finally {
    for (const timer of timers) clearTimeout(timer);
    process.off('SIGINT', passOn).off('SIGTERM', passOn).off('SIGHUP', passOn);
    if (output !== 'inherit') for (const fd of output) closeSync(fd);
  }
}

/** Some errors spawn reports by an event, some it throws. */
function startKid(program: string, args: string[], stdio: StdioOptions): ChildProcess | Error {
  try {
    return spawn(program, args, { detached: true, stdio });
  } catch (error) {
    return error as Error;
  }
}

function neverStarted(error: NodeJS.ErrnoException): Ending {
  const explanation = error.code === 'ENOENT' ? 'its interpreter does not exist' : (error.code ?? error.message);
  return {
    pid: undefined,
    status: undefined,
    signal: undefined,
    reason: 'The kid could not be started.',
    error: `cannot be run: ${explanation}`,
  };
}

function describeEnding(
  pid: number | undefined,
  code: number | null,
  signal: NodeJS.Signals | null,
  limitSeconds: number | undefined,
): Ending {
  const error = limitSeconds === undefined ? undefined : `ended by RunTimeLimit after ${limitSeconds} seconds`;
  if (signal !== null) {
    const number = constants.signals[signal];
    return { pid, status: 0, signal: number, reason: `The kid was terminated by signal ${number}.`, error };
  }
  const reason = code === 0 ? 'The kid exited cleanly.' : `The kid exited with a status of ${code}.`;
  return { pid, status: code ?? 0, signal: 0, reason, error };
}

/** A detached kid leads a group that has its pid. */
function signalGroup(pid: number | undefined, signal: NodeJS.Signals | number): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Already gone.
  }
}
