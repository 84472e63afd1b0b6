// How every program starts and ends: command line, messages and exit code.
import type { Command, CommanderError } from 'commander';
import { EXIT_CODES, Failure, KnownFailure } from './failure.ts';
import { safeText } from './output.ts';
import { print, say } from './streams.ts';

/**
 * Parses a command line. Errors are printed in the project's style on stderr; help goes to stdout
 * before the CommanderError that ends the program is thrown. `write` throws the program's error for
 * a stdout that cannot be written; by default Failure `failed`.
 */
export async function parseWords(command: Command, argv: readonly string[], write = printText): Promise<void> {
  let printed = '';
  const inOurWords = (text: string): string =>
    text.replace(/^error: /, `${command.name()}: error: `).replace(/^\((.*)\)$/m, `${command.name()}: hint: $1`);
  command
    .configureOutput({
      writeOut: (text) => {
        printed += text;
      },
      writeErr: (text) => say(text.trimEnd()),
      outputError: (text, writeError) => writeError(inOurWords(text)),
    })
    .exitOverride();
  try {
    command.parse(argv, { from: 'user' });
  } catch (error) {
    await write(printed);
    throw error;
  }
}

async function printText(text: string): Promise<void> {
  try {
    await print(text);
  } catch (error) {
    throw new Failure('failed', `standard output cannot be written: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/**
 * Reports why a program ends; returns its exit code from its table, which has `usage`, `bug` and
 * every kind of its failures.
 */
export function reportEnd(name: string, codes: { usage: number; bug: number }, error: unknown): number {
  if (isOfCommander(error)) return error.exitCode === 0 ? EXIT_CODES.ok : codes.usage;
  if (!(error instanceof KnownFailure)) return reportBug(name, error);
  say(`${name}: error: ${safeText(error.message)}`);
  for (const hint of error.hints.length > 0 ? error.hints : hintsFor(error.cause))
    say(`${name}: hint: ${safeText(hint)}`);
  return codes[error.kind as keyof typeof codes];
}

/** Codes of file systems on the network, or in another process, that went away. */
const GONE = new Set(['ENOTCONN', 'ESHUTDOWN', 'ESTALE']);

/** Hints for system calls that fail whatever the program was doing. */
function hintsFor(cause: unknown): string[] {
  const isGone = cause instanceof Error && GONE.has((cause as NodeJS.ErrnoException).code ?? '');
  return isGone ? ['the file system that was mounted there is gone: umount -l its directory, and mount it again'] : [];
}

/** Recognised by its code, because a program need not load commander to end. */
function isOfCommander(error: unknown): error is CommanderError {
  return error instanceof Error && String((error as Partial<CommanderError>).code).startsWith('commander.');
}

/** Reports a bug in one line, and with WEBJOB_DEBUG in the environment with a stack trace. */
function reportBug(name: string, error: unknown): number {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const [line = ''] = message.replace(/[^\x20-\x7e\n]/g, '?').split('\n');
  say(`${name}: error: internal error: ${line}`);
  if (process.env.WEBJOB_DEBUG) say(stack ?? message);
  else say(`${name}: hint: this is a bug; with WEBJOB_DEBUG=1 in the environment ${name} says where: please report it`);
  return EXIT_CODES.bug;
}

/**
 * Runs a program whose `main` returns its exit code. An uncaught error, and an end without an exit
 * code, have the exit code of a bug.
 */
export function startProgram(name: string, codes: { usage: number; bug: number }, main: () => Promise<number>): void {
  process.exitCode = EXIT_CODES.bug;
  process.on('uncaughtException', (error) => process.exit(reportBug(name, error)));
  main()
    .catch((error: unknown) => reportEnd(name, codes, error))
    .then((code) => {
      process.exitCode = code;
    });
}
