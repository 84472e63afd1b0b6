// The pad-make-script command line.
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Command, CommanderError } from 'commander';
import { catchBugs, print, reportBug, say } from '../cli/program.ts';
import { EXIT_CODES, PadFailure } from './failure.ts';
import { openPayload } from './payload.ts';
import { scriptPieces } from './script.ts';

declare const WEBJOB_VERSION: string;

const EXPLANATION = `
The script carries the payload, and needs nothing but a POSIX shell and one of base64, openssl, uudecode or perl
where it is run. Run with a command, it unpacks the payload beside itself, replaces every %payload in the command's
arguments by the payload's name, runs the command, takes the payload away again, and exits as the command did. The
payload's name is the script's own without .pad. Without a command, the script lists what it carries and checks it.

A folder, or several payloads, are unpacked as a folder, and %payload is its name.

Examples:
  pad-make-script myprograms.rpm > myprograms.rpm.pad
  webjob --execute --file /usr/local/etc/webjob.conf myprograms.rpm.pad rpm -i /var/tmp/%payload

  pad-make-script collect.sh ftimes cat > toolbox.pad
  webjob --execute --file /usr/local/etc/webjob.conf toolbox.pad /var/tmp/%payload/collect.sh

Exit codes:
  0  the script is written
  1  wrong command line
  2  a payload cannot be read
  3  the script cannot be written
  70 an error that pad-make-script did not expect: a bug`;

async function main(argv: string[]): Promise<void> {
  let printed = '';
  const command = new Command('pad-make-script')
    .usage('[--name <name>] payload... > file.pad')
    .description('Make a script that carries a payload, unpacks it where it is run, and delivers it with a command.')
    .option('--name <name>', "the payload's name where the script is not called .pad (its own; of several: payload)")
    .version(WEBJOB_VERSION, '-v, --version', 'print the version')
    .helpOption('--help', 'print this help')
    .argument('<payload...>', 'a file, a folder, or several')
    .addHelpText('after', EXPLANATION)
    .configureOutput({
      writeOut: (text) => {
        printed += text;
      },
      writeErr: (text) => say(text.trimEnd()),
      outputError: (text, write) => write(inOurWords(text)),
    })
    .exitOverride();
  try {
    command.parse(argv, { from: 'user' });
  } catch (error) {
    await print(printed).catch(failedOutput);
    throw error;
  }
  if (process.stdout.isTTY) {
    throw new PadFailure('usage', 'the script would go to a terminal', 'redirect it: pad-make-script x > x.pad');
  }
  const payload = openPayload(command.args, command.opts<{ name?: string }>().name);
  const pieces = scriptPieces(payload, `pad-make-script ${WEBJOB_VERSION}`);
  await pipeline(Readable.from(pieces, { objectMode: true, highWaterMark: 1 }), process.stdout).catch(failedOutput);
}

function inOurWords(text: string): string {
  return text.replace(/^error: /, 'pad-make-script: error: ').replace(/^\((.*)\)$/m, 'pad-make-script: hint: $1');
}

function failedOutput(error: NodeJS.ErrnoException): never {
  if (error.syscall !== 'write') throw error;
  throw new PadFailure('output', `the script cannot be written: ${error.code}`, undefined, { cause: error });
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage;
  if (!(error instanceof PadFailure)) return reportBug('pad-make-script', error);
  say(`pad-make-script: error: ${error.message}`);
  if (error.hint) say(`pad-make-script: hint: ${error.hint}`);
  return EXIT_CODES[error.kind];
}

catchBugs('pad-make-script');
main(process.argv.slice(2))
  .then(() => EXIT_CODES.ok, report)
  .then((code) => {
    process.exitCode = code;
  });
