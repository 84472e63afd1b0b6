// The webjobctl command line, assembled from one file for each command.
import { Command } from 'commander';
import { safeText } from '../cli/output.ts';

declare const WEBJOB_VERSION: string;

/** Makes a command, given the word that follows its name. */
type MakeCommand = (next?: string) => Command | Promise<Command>;

/**
 * Every command, in the order in which an operator meets them. Each is loaded on demand, because
 * loading all of them takes longer than most commands run.
 */
const COMMANDS: ReadonlyMap<string, () => Promise<MakeCommand>> = new Map<string, () => Promise<MakeCommand>>([
  ['init', async () => (await import('./commands/init.ts')).initCommand],
  ['client', async () => (await import('./commands/client.ts')).clientCommand],
  ['ca', async () => (await import('./commands/ca.ts')).caCommand],
  ['configtest', async () => (await import('./commands/configtest.ts')).configtestCommand],
  ['sign', async () => (await import('./commands/sign.ts')).signCommand],
  ['jobs', async () => (await import('./commands/jobs.ts')).jobsCommand],
  ['show', async () => (await import('./commands/show.ts')).showCommand],
  ['note', async () => (await import('./commands/note.ts')).noteCommand],
  ['diff', async () => (await import('./commands/diff.ts')).diffCommand],
  ['latest', async () => (await import('./commands/latest.ts')).latestCommand],
  ['compare', async () => (await import('./commands/compare.ts')).compareCommand],
  ['search', async () => (await import('./commands/search.ts')).searchCommand],
  ['tail', async () => (await import('./commands/tail.ts')).tailCommand],
  ['clients', async () => (await import('./commands/clients.ts')).clientsCommand],
  ['assign', async () => (await import('./commands/assign.ts')).assignCommand],
  ['alert', async () => (await import('./commands/alert.ts')).alertCommand],
  ['report', async () => (await import('./commands/report.ts')).reportCommand],
  ['metrics', async () => (await import('./commands/metrics.ts')).metricsCommand],
  ['ledger', async () => (await import('./commands/ledger.ts')).ledgerCommand],
  ['index', async () => (await import('./commands/index.ts')).indexCommand],
  ['export', async () => (await import('./commands/export.ts')).exportCommand],
  ['prune', async () => (await import('./commands/prune.ts')).pruneCommand],
  ['hold', async () => (await import('./commands/hold.ts')).holdCommand],
  ['acts', async () => (await import('./commands/acts.ts')).actsCommand],
  ['pack', async () => (await import('./commands/pack.ts')).packCommand],
  ['unpack', async () => (await import('./commands/unpack.ts')).unpackCommand],
  ['verify', async () => (await import('./commands/verify.ts')).verifyCommand],
  ['evidence', async () => (await import('./commands/evidence.ts')).evidenceCommand],
  ['custody', async () => (await import('./commands/custody.ts')).custodyCommand],
  ['completion', async () => (await import('./commands/completion.ts')).completionCommand],
]);

/** Options that need no command. */
const VERSION_WORDS = new Set(['-v', '--version']);

/**
 * Commands that need all others: `completion` prints completions for them, and `init` installs
 * those.
 */
const ALL = new Set(['completion', 'init']);

const EXPLANATION = `
webjobctl reads the same nph-webjob.cfg, locker and logs as the server, and needs no daemon.

Exit codes:
  0  done, without findings
  1  done, with findings (nothing found, something differs, something is wrong)
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file, a program or the network failed
  5  diff: there is nothing to compare
  70 an error that webjobctl did not expect: a bug

See also: man webjobctl`;

/**
 * Returns a program that can parse the given words: with one command when they begin with its name,
 * otherwise with all. Commands set process.exitCode, or throw Failure or CommanderError.
 */
export async function makeProgram(words: readonly string[]): Promise<Command> {
  const program = new Command('webjobctl')
    .description('Set up and check a WebJob site, and find, check and keep the uploads of its clients.')
    .option(
      '-c, --config <FILE>',
      'nph-webjob.cfg (default: WEBJOB_PROPERTIES_FILE, or where the server looks); repeat it to read several sites as one',
      (file: string, files: string[] = []) => [...files, file],
    )
    .option('--json', 'print one JSON value on each line')
    .option('--ledger <URL>', 'read from a PostgreSQL database that sites push to: jobs, show and clients')
    .version(WEBJOB_VERSION, '-v, --version', 'print the version')
    .addHelpText('after', EXPLANATION)
    .showSuggestionAfterError();
  const word = findCommand(words) ?? '';
  const asked = COMMANDS.get(word);
  const loaded = asked ? [asked] : VERSION_WORDS.has(word) ? [] : COMMANDS.values();
  const next = asked && words[words.indexOf(word) + 1];
  for (const load of loaded) program.addCommand(await (await load())(next));
  return prepare(program);
}

/** The word in the place of a command's name; undefined for words that concern all commands. */
function findCommand(words: readonly string[]): string | undefined {
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? '';
    if (/^(?:-c|--config|--ledger)$/.test(word)) at++;
    else if (word !== '--json' && !/^(?:-c.|--config=|--ledger=)/.test(word)) return ALL.has(word) ? undefined : word;
  }
  return undefined;
}

/** Settings for every command: how its help is requested, and the form of its errors. */
function prepare(command: Command): Command {
  command
    .helpOption('-h, --help', 'print this help')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(safeText(text.replace(/^error: /, 'webjobctl: error: '))) });
  for (const child of command.commands) prepare(child);
  return command;
}
