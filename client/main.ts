// The webjob command line: what the original understands, and nothing is done here but to read it.
import { Command, CommanderError } from 'commander';
import { EXIT_CODES, Failure } from './failure.ts';
import { describeClient } from './record.ts';
import { readSettings } from './settings.ts';
import { executeJob } from './stages.ts';

const EXPLANATION = `
The program is fetched from URLGetURL, run with the options that follow its name, and its stdout, stderr and a
record of the run are put to URLPutURL. On success nothing is printed.

Example:
  webjob --execute --file /usr/local/etc/webjob.conf host.sh

Exit codes:
  0  the output is on the server (or, without URLPutURL, the program's own code)
  1  wrong command line
  2  wrong settings
  3  the program could not be fetched
  4  the program could not be run, or ran over RunTimeLimit; what there is was uploaded
  5  the output could not be uploaded
  128 + n  ended by signal n`;

async function main(argv: string[]): Promise<number> {
  const command = new Command('webjob')
    .usage('{-e|--execute} {-f|--file} config[,config..] program [options]')
    .description('Get a program from a WebJob server, run it, and put what it prints back on the server.')
    .requiredOption('-e, --execute', 'get, run and put a program')
    .requiredOption('-f, --file <config>', 'settings, one file or several separated by commas')
    .version(describeClient().version, '-v, --version', 'print the version')
    .helpOption('--help', 'print this help')
    .argument('<program>', 'its name in the profile on the server')
    .argument('[options...]', 'passed on to the program untouched')
    .addHelpText('after', EXPLANATION)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'webjob: error: ')) })
    .passThroughOptions()
    .exitOverride();
  command.parse(argv, { from: 'user' });
  const [program = '', ...args] = command.args;
  return await executeJob(readSettings(command.opts<{ file: string }>().file), program, args);
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage;
  if (!(error instanceof Failure)) throw error;
  process.stderr.write(`webjob: error: ${error.message}\n`);
  if (error.hint) process.stderr.write(`webjob: hint: ${error.hint}\n`);
  return EXIT_CODES[error.stage];
}

// What ends before it knows its code has failed.
process.exitCode = EXIT_CODES.usage;
main(process.argv.slice(2))
  .catch(report)
  .then((code) => {
    process.exitCode = code;
  });
