// What bin/webjobctl starts: reads the command line, says what went wrong, sets the exit code.
import { setFlagsFromString } from 'node:v8';
import { isMainThread } from 'node:worker_threads';
import { CommanderError } from 'commander';
import { EXIT_CODES, Failure } from './failure.ts';
import { safeText } from './output.ts';
import { makeProgram } from './program.ts';

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage;
  // Whoever reads our output has seen enough.
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') return EXIT_CODES.ok;
  if (!(error instanceof Failure)) {
    // A bug; but 1, with which Node would end, says that something was found.
    process.stderr.write(`${safeText(error instanceof Error ? (error.stack ?? error.message) : String(error))}\n`);
    return EXIT_CODES.failed;
  }
  process.stderr.write(`webjobctl: error: ${safeText(error.message)}\n`);
  if (error.hint) process.stderr.write(`webjobctl: hint: ${safeText(error.hint)}\n`);
  return EXIT_CODES[error.kind];
}

function run(): void {
  // A locker of a hundred thousand groups fits in a third of the memory when the heap is cleaned more often, and takes no longer.
  for (const flag of ['--heap-growing-percent=20', '--semi-space-growth-factor=1']) setFlagsFromString(flag);
  // Whoever reads our output may leave early, as head does.
  process.stdout.on('error', (error: NodeJS.ErrnoException) =>
    process.exit(error.code === 'EPIPE' ? 0 : EXIT_CODES.failed),
  );
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

if (isMainThread) run();
else import('./database/aside.ts').then(({ serveReader }) => serveReader());
