// The webjobctl command line: one file a command, put together here and nothing else.
import { Command } from 'commander';
import { clientCommand } from './clients/command.ts';
import { completionCommand } from './completion/command.ts';
import { configtestCommand } from './configtest/command.ts';
import { custodyCommand } from './custody/command.ts';
import { exportCommand } from './database/export.ts';
import { indexCommand } from './database/indexing.ts';
import { FIND_COMMANDS } from './find/commands.ts';
import { initCommand } from './init/command.ts';
import { holdCommand } from './keep/hold.ts';
import { pruneCommand } from './keep/prune.ts';
import { metricsCommand } from './metrics.ts';
import { packCommand } from './packs/pack.ts';
import { unpackCommand } from './packs/unpack.ts';
import { reportCommand } from './report.ts';
import { signCommand } from './sign/command.ts';
import { verifyCommand } from './verify/command.ts';

declare const WEBJOB_VERSION: string;

/** Every command, in the order in which an operator meets them. */
const COMMANDS: (() => Command)[] = [
  initCommand,
  clientCommand,
  configtestCommand,
  signCommand,
  ...FIND_COMMANDS,
  reportCommand,
  metricsCommand,
  indexCommand,
  exportCommand,
  pruneCommand,
  holdCommand,
  packCommand,
  unpackCommand,
  verifyCommand,
  custodyCommand,
  completionCommand,
];

const EXPLANATION = `
The files are the truth: webjobctl reads the same nph-webjob.cfg, locker and logs as the server, and needs no daemon.

Exit codes:
  0  done, and all is well
  1  done, and there are findings (nothing found, something differs, something is wrong)
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file, a program or the network failed

man webjobctl tells the rest.`;

/** All of it, ready to parse. Its commands set process.exitCode, or throw Failure or CommanderError. */
export function makeProgram(): Command {
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
