// RUN: runs the program in its own session and reports how it ended. The output is read from pipes
// while the program runs; processes that outlive the program are not waited for.
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { type Command, makeExact } from './exact.ts';
import { LOCK_VARIABLE } from './lock.ts';
import { openTaps, type Sink } from './pipes.ts';
import { endSession, signalSession } from './processes.ts';
import type { PlacedProgram } from './program.ts';
import { ASSIGNMENT_VARIABLE, type Ending, type Job, OUTER_JOB_VARIABLE } from './record.ts';
import type { ClientSettings } from './settings.ts';
import { explainStartFailure, isForeign } from './start-failure.ts';
import {
  findBatchObstacle,
  findSystemProgram,
  formatBatchLine,
  isBatch,
  isRunnable,
  makeShellCommand,
} from './windows.ts';

/**
 * Where the program's stdout and stderr go: through pipes, which may be made in the private
 * directory `folder`, or to webjob's own stdout and stderr.
 */
export type Output = { sinks: readonly [out: Sink, err: Sink]; folder: string } | 'inherit';

const KILL_AFTER_MS = 5_000;
const MOST_TRIES = 5;

/**
 * Runs a program to its end, in webjob's working directory. Signals that webjob receives meanwhile
 * are passed on to the program's session. After RunTimeLimit the whole session is killed; a process
 * that started a session of its own survives. Never throws.
 */
export async function runProgram(
  { settings, args, runner, jobId }: Pick<Job, 'settings' | 'args' | 'runner' | 'jobId'>,
  program: PlacedProgram,
  output: Output,
): Promise<Ending> {
  const taps = output === 'inherit' ? undefined : openTaps(output.sinks, output.folder);
  const stdio: StdioOptions = taps ? ['inherit', taps[0].stdio, taps[1].stdio] : 'inherit';
  const kid = startKid({ program, args, runner }, stdio, kidEnvironment(settings, jobId));
  taps?.[0].attach(kid instanceof Error ? null : kid.stdout);
  taps?.[1].attach(kid instanceof Error ? null : kid.stderr);
  const pid = kid instanceof Error ? undefined : kid.pid;
  let timedOut = false;
  let killAt = 0;
  let hasEnded = false;
  const signalKid = (signal: NodeJS.Signals | number): void => {
    // Windows immediately reuses the process id of a process that has ended.
    if (!hasEnded || process.platform !== 'win32') signalSession(pid, signal);
  };
  const passOn = (signal: NodeJS.Signals): void => signalKid(signal);
  process.on('SIGINT', passOn).on('SIGTERM', passOn).on('SIGHUP', passOn);
  const timers: NodeJS.Timeout[] = [];
  if (settings.runTimeLimit > 0) {
    timers.push(
      setTimeout(() => {
        timedOut = true;
        killAt = performance.now() + KILL_AFTER_MS;
        signalKid(settings.timeoutSignal);
        timers.push(setTimeout(() => signalKid('SIGKILL'), KILL_AFTER_MS));
      }, settings.runTimeLimit * 1000),
    );
  }
  try {
    if (kid instanceof Error) return neverStarted(kid, program);
    const ending = await new Promise<Ending>((resolve) => {
      kid.on('error', (error: NodeJS.ErrnoException) => resolve(neverStarted(error, program)));
      kid.on('exit', (code, signal) => {
        hasEnded = true;
        resolve(describeEnding(pid, code, signal, timedOut ? settings.runTimeLimit : undefined));
      });
    });
    if (timedOut && pid !== undefined) await endSession(pid, killAt - performance.now());
    return ending;
  } finally {
    for (const timer of timers) clearTimeout(timer);
    for (const tap of taps ?? []) await tap.drain();
    process.off('SIGINT', passOn).off('SIGTERM', passOn).off('SIGHUP', passOn);
  }
}

/** A program with its arguments, and the command that runs the program if the system does not. */
interface Run {
  program: PlacedProgram;
  args: string[];
  runner: readonly string[] | undefined;
}

/**
 * The environment of the program. If the program itself runs webjob, the inner job records the id
 * of the outer job and runs under its lock.
 */
function kidEnvironment(settings: ClientSettings, jobId: string | undefined): NodeJS.ProcessEnv {
  return {
    ...process.env,
    // The assignment belongs to this job alone, not to jobs that its program starts.
    [ASSIGNMENT_VARIABLE]: undefined,
    ...(jobId !== undefined && { [OUTER_JOB_VARIABLE]: jobId }),
    ...(settings.lockFile !== '' && { [LOCK_VARIABLE]: resolve(settings.lockFile) }),
  };
}

/**
 * Starts the program. If another run removed the program first, it is restored up to a few times;
 * if it keeps disappearing, something removes it on purpose.
 */
function startKid(run: Run, stdio: StdioOptions, env: NodeJS.ProcessEnv): ChildProcess | Error {
  const { program, runner } = run;
  if (!runner && isForeign(program.fd)) return Object.assign(new Error('not for this machine'), { code: 'ENOEXEC' });
  for (let tries = 1; ; tries++) {
    const command = commandOf(run, env);
    if (command instanceof Error) return command;
    const kid = trySpawn(command, stdio);
    const isStarted = !(kid instanceof Error) && kid.pid !== undefined;
    if (isStarted || tries === MOST_TRIES || !program.restore()) return kid;
    if (!(kid instanceof Error)) kid.on('error', () => {});
  }
}

function commandOf({ program, args, runner }: Run, env: NodeJS.ProcessEnv): Command | Error {
  if (runner) return { file: runner[0] ?? '', args: [...runner.slice(1), program.path], env };
  const command: Command = { file: program.path, args: program.argumentsOf(args), env };
  return process.platform === 'win32' ? commandForWindows(command) : makeExact(command, args);
}

/**
 * Wraps a batch file in a command for cmd.exe: Node does not start batch files, because cmd.exe
 * parses a command line differently from programs.
 */
function commandForWindows(command: Command): Command | Error {
  const { file, args, env } = command;
  if (!isRunnable(file)) return new Error('Windows runs files whose names end in .exe, .com, .bat or .cmd');
  if (!isBatch(file)) return command;
  const obstacle = findBatchObstacle(file, args);
  if (obstacle) return new Error(obstacle.message);
  const shell = findSystemProgram('cmd.exe');
  if (shell === undefined) return new Error('there is no System32\\cmd.exe in the directory that SystemRoot names');
  return { env, ...makeShellCommand(shell, formatBatchLine(file, args), false) };
}

/** Spawns a process. Returns the errors that spawn throws; it reports others by an event. */
function trySpawn({ file, args, env, options }: Command, stdio: StdioOptions): ChildProcess | Error {
  try {
    // Windows gives a detached program a console window of its own.
    return spawn(file, args, { detached: process.platform !== 'win32', stdio, env, ...options });
  } catch (error) {
    return error as Error;
  }
}

function neverStarted(error: NodeJS.ErrnoException, program: PlacedProgram): Ending {
  return {
    pid: undefined,
    status: undefined,
    signal: undefined,
    reason: 'The kid could not be started.',
    error: `cannot be run: ${explainStartFailure(error, program)}`,
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
