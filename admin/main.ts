// The webjobctl command line: one file a command, nothing is done here but to put them together.
import { Command, CommanderError } from 'commander';
import { EXIT_CODES, Failure } from './failure.ts';
import { safeText } from './output.ts';

declare const WEBJOB_VERSION: string;

/** Every command, in the order in which an operator meets them. */
const COMMANDS: (() => Command)[] = [];

const EXPLANATION = `
The files are the truth: webjobctl reads the same nph-webjob.cfg, locker and logs as the server, and needs no daemon.

Exit codes:
  0  done, and all is well
  1  done, and there are findings (nothing found, something differs, something is wrong)
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file, a program or the network failed

man webjobctl tells the rest.`;

function makeProgram(): Command {
  const program = new Command('webjobctl')
    .description('Set up and check a WebJob site, and find, check and keep what its clients sent.')
    .option('-c, --config <file>', 'nph-webjob.cfg (else WEBJOB_PROPERTIES_FILE, else where the server looks)')
    .option('--json', 'one JSON value a line in place of text')
    .version(WEBJOB_VERSION, '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', EXPLANATION)
    .showSuggestionAfterError();
  for (const make of COMMANDS) program.addCommand(make());
  return prepare(program);
}

/** Errors in our voice, and every command knows the global options in whatever place they stand. */
function prepare(command: Command): Command {
  command
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'webjobctl: error: ')) });
  for (const child of command.commands) prepare(child);
  return command;
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage;
  // Whoever reads our output has seen enough.
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') return EXIT_CODES.ok;
  if (!(error instanceof Failure)) throw error;
  process.stderr.write(`webjobctl: error: ${safeText(error.message)}\n`);
  if (error.hint) process.stderr.write(`webjobctl: hint: ${safeText(error.hint)}\n`);
  return EXIT_CODES[error.kind];
}

// Whoever reads our output may leave early, as head does.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 0 : EXIT_CODES.failed),
);
// What ends before it knows its code has failed. A command sets another one by process.exitCode.
process.exitCode = EXIT_CODES.failed;
makeProgram()
  .parseAsync(process.argv)
  .then(() => {
    if (process.exitCode === EXIT_CODES.failed) process.exitCode = EXIT_CODES.ok;
  })
  .catch((error) => {
    process.exitCode = report(error);
  });
