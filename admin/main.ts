// The program webjobctl: reads the command line, prints errors, and sets the exit code.
import './node-version.ts';
import { setFlagsFromString } from 'node:v8';
import { LockerFailure, nameReached } from 'webjob-locker';
import { EXIT_CODES, Failure } from '../cli/failure.ts';
import { startProgram } from '../cli/program.ts';
import { say } from '../cli/streams.ts';
import { makeProgram } from './program.ts';

/**
 * Failures of the system that nothing else has described: a system call, the database, the locker.
 * Other errors are bugs.
 */
function failureOf(error: NodeJS.ErrnoException): Error {
  error.message = nameReached(error.message);
  const { syscall, code, message } = error;
  const isSystem = syscall !== undefined || code === 'ERR_SQLITE_ERROR' || error instanceof LockerFailure;
  if (!isSystem) return error;
  const mayNot = code === 'EACCES' || code === 'EPERM';
  return new Failure('failed', message, mayNot ? 'run it as root, or as a user with access' : [], { cause: error });
}

/** Ends the program when stdout fails: a full disk must not look like the end of the output. */
function endOutput({ code }: NodeJS.ErrnoException): never {
  if (code === 'EPIPE') process.exit(EXIT_CODES.ok);
  say(`webjobctl: error: standard output cannot be written: ${code}`);
  process.exit(EXIT_CODES.failed);
}

async function main(): Promise<number> {
  // More frequent garbage collection lets a locker of a hundred thousand uploads fit in a third of
  // the memory, without taking longer. Most commands end before a thread that compiles beside them
  // has saved the processor time that it takes.
  for (const flag of ['--heap-growing-percent=20', '--semi-space-growth-factor=1', '--no-concurrent-recompilation'])
    setFlagsFromString(flag);
  // The reader of the output may leave early, as head does.
  process.stdout.on('error', endOutput);
  try {
    const program = await makeProgram(process.argv.slice(2));
    // A command sets another exit code through process.exitCode.
    const { exitCode: unset } = process;
    await program.parseAsync(process.argv);
    return process.exitCode === unset ? EXIT_CODES.ok : Number(process.exitCode);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') return EXIT_CODES.ok;
    throw failureOf(error as Error);
  }
}

startProgram('webjobctl', EXIT_CODES, main);
