// The complete webjob command line with its help: the options of the original and the new ones.
import { Command, Option } from 'commander';
import { parseWords } from '../cli/program.ts';
import { DIGESTS, write } from './modes.ts';
import type { CommandLine, Options } from './options.ts';
import { describeClient } from './record.ts';

const USAGE = `{-e|--execute} {-f|--file} config[,config..] program [options]
       webjob --batch {-f|--file} config[,config..] [name]
       webjob {-g|--get-url} [{-f|--file} config[,config..]] url
       webjob {-h|--hashsum} {-t|--type} digest [file]
       webjob --flush [directory] {-f|--file} config[,config..]
       webjob {-v|--version}`;

const EXPLANATION = `
--execute fetches the program from URLGetURL, runs it with the options that follow its name, and uploads its stdout, its
stderr and a run record to URLPutURL. On success nothing is printed.

--batch does the same with the batch that the server makes for this client (named batch, unless a name is given), and
runs each assignment in a webjob of its own.

Example:
  webjob --execute --file /usr/local/etc/webjob.conf host.sh

Exit codes:
  0  done: the output is on the server (without URLPutURL, the program's own code)
  1  wrong command line
  2  wrong settings
  3  the program could not be fetched, verified, or made by its hook; nothing was run
  4  the program could not be run, exceeded RunTimeLimit, or printed more than could be stored;
     the stored part was uploaded
  5  the output could not be uploaded; it is kept, and the hint is the command that delivers it
  6  another run holds LockFile
  70 an error that webjob did not expect: a bug
  74 standard output could not be written
  128 + n  ended by signal n`;

/**
 * Parses a command line. Throws CommanderError when there is no further work, such as for --help,
 * and Failure `output`.
 */
export async function readCommandLine(argv: readonly string[]): Promise<CommandLine> {
  const command = new Command('webjob')
    .usage(USAGE)
    .description('Fetch a program from a WebJob server, run it, and upload its output.')
    .option('-e, --execute', 'fetch a program, run it and upload its output')
    .option('--batch', 'fetch and run the assignments of this client')
    .addOption(new Option('--run-batch <file>').hideHelp())
    .option('-g, --get-url', 'write the content of a URL to stdout')
    .option('-h, --hashsum', 'print the digest of a file, or of stdin')
    .option('--flush [directory]', 'deliver the jobs in SpoolDirectory, or in a directory')
    .option('-f, --file <config>', 'settings file, or several separated by commas')
    .addOption(new Option('-t, --type <digest>', `for --hashsum: ${DIGESTS.join(', ')}`))
    .version(describeClient().version, '-v, --version', 'print the version')
    .helpOption('--help', 'print this help')
    // The usage line already shows what may follow an option.
    .configureHelp({ optionTerm: ({ flags }) => flags.replace(/ \[.*\]$/, '') })
    .argument('[program]', 'its name in the profile on the server')
    .argument('[options...]', 'passed to the program unchanged')
    .addHelpText('after', EXPLANATION)
    .passThroughOptions();
  await parseWords(command, argv, write);
  return { options: command.opts<Options>(), args: command.args };
}
