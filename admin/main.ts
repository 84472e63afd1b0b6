// What bin/webjobctl starts: reads the command line, says what went wrong, sets the exit code.
import './node-version.ts';
import { setFlagsFromString } from 'node:v8';
import { CommanderError } from 'commander';
import { EXIT_CODES, Failure } from '../cli/failure.ts';
import { safeText } from '../cli/output.ts';
import { makeProgram } from './program.ts';

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage;
  // Whoever reads our output has seen enough.
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') return EXIT_CODES.ok;
  const failure = error instanceof Failure ? error : failureOf(error as NodeJS.ErrnoException);
  process.stderr.write(`webjobctl: error: ${safeText(failure.message)}\n`);
  if (failure.hint) process.stderr.write(`webjobctl: hint: ${safeText(failure.hint)}\n`);
  return EXIT_CODES[failure.kind];
}

/** What nobody on the way had a word for: a system call that failed, or a bug, of which the stack is wanted. The code is that of no finding. */
function failureOf({ syscall, code, message, stack }: NodeJS.ErrnoException): Failure {
  if (syscall === undefined) return new Failure('failed', stack ?? message);
  const mayNot = code === 'EACCES' || code === 'EPERM';
  return new Failure('failed', message, mayNot ? 'run it as root, or as one who may' : undefined);
}

/** Output has no other place to go: a full disk must not look like the end of it. */
function endOutput({ code }: NodeJS.ErrnoException): never {
  if (code === 'EPIPE') process.exit(EXIT_CODES.ok);
  process.stderr.write(`webjobctl: error: standard output cannot be written: ${code}\n`);
  process.exit(EXIT_CODES.failed);
}

function run(): void {
  // A locker of a hundred thousand groups fits in a third of the memory when the heap is cleaned more often, and takes no longer.
  for (const flag of ['--heap-growing-percent=20', '--semi-space-growth-factor=1']) setFlagsFromString(flag);
  // Whoever reads our output may leave early, as head does.
  process.stdout.on('error', endOutput);
  // What ends before it knows its code has failed. A command sets another one by process.exitCode.
  process.exitCode = EXIT_CODES.failed;
  makeProgram(process.argv.slice(2))
    .then((program) => program.parseAsync(process.argv))
    .then(() => {
      if (process.exitCode === EXIT_CODES.failed) process.exitCode = EXIT_CODES.ok;
    })
    .catch((error) => {
      process.exitCode = report(error);
    });
}

run();
