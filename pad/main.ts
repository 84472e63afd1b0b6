// The pad-make-script command line.
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Command } from 'commander';
import { EXIT_CODES, Failure } from '../cli/failure.ts';
import { parseWords, startProgram } from '../cli/program.ts';
import { openPayload } from './payload.ts';
import { scriptPieces } from './script.ts';

declare const WEBJOB_VERSION: string;

const EXPLANATION = `
The script carries the payload, and needs nothing but a POSIX shell and one of base64, openssl, uudecode or perl
where it is run. Run with a command, it unpacks the payload beside itself, replaces every %payload in the command's
arguments with the payload's name, runs the command, removes the payload, and exits with the status of the command.
The payload's name is the script's own without .pad. Without a command, the script lists and checks its payload.

A directory, or several payloads, are unpacked as a directory, and %payload is its name.

Examples:
  pad-make-script myprograms.rpm > myprograms.rpm.pad
  webjob --execute --file /usr/local/etc/webjob.conf myprograms.rpm.pad rpm -i /var/tmp/%payload

  pad-make-script collect.sh ftimes cat > toolbox.pad
  webjob --execute --file /usr/local/etc/webjob.conf toolbox.pad /var/tmp/%payload/collect.sh

Exit codes:
  0  the script is written
  2  wrong command line
  4  a payload cannot be read, or the script cannot be written
  70 an error that pad-make-script did not expect: a bug`;

async function main(argv: string[]): Promise<number> {
  const command = new Command('pad-make-script')
    .usage('[--name NAME] PAYLOAD... > FILE.pad')
    .description('Make a script that carries a payload, unpacks it where it is run, and delivers it with a command.')
    .option(
      '--name <NAME>',
      'the name of the payload if that of the script does not end in .pad (default: its own, or payload for several)',
    )
    .version(WEBJOB_VERSION, '-v, --version', 'print the version')
    .helpOption('--help', 'print this help')
    .argument('<PAYLOAD...>', 'a file, a directory, or several')
    .addHelpText('after', EXPLANATION);
  await parseWords(command, argv);
  if (process.stdout.isTTY) {
    throw new Failure('usage', 'the script would be written to a terminal', 'redirect it: pad-make-script x > x.pad');
  }
  const payload = openPayload(command.args, command.opts<{ name?: string }>().name);
  const pieces = scriptPieces(payload, `pad-make-script ${WEBJOB_VERSION}`);
  await pipeline(Readable.from(pieces, { objectMode: true, highWaterMark: 1 }), process.stdout).catch(failedOutput);
  return EXIT_CODES.ok;
}

function failedOutput(error: NodeJS.ErrnoException): never {
  if (error.syscall !== 'write') throw error;
  throw new Failure('failed', `the script cannot be written: ${error.code}`, undefined, { cause: error });
}

startProgram('pad-make-script', EXIT_CODES, () => main(process.argv.slice(2)));
