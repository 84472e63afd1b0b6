// webjobctl hold: what must not be removed, for whom and why. A hold counts from the moment it is set, also for a prune that is at work.
import { Command } from 'commander';
import type { ServerSettings } from '../../cgi/controls.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { formatTable, printJson, printLine, say } from '../../cli/output.ts';
import { operatorName, recordEvent } from '../../evidence/events.ts';
import { type Hold, isHoldId, readHolds, writeHolds } from '../retention/holds.ts';
import { globalOptions, openSite } from '../site/site.ts';
import { inTurn } from '../site/turn.ts';

interface Target {
  client?: string;
  job?: string;
}

const EXPLANATION = `
prune and pack leave alone what is on hold. A group is on hold when the client id stands in its line of the log, in its record or in its name.

Example:
  webjobctl hold add --client client1 --reason 'case 4711'
  webjobctl hold list
  webjobctl hold remove --client client1 --reason 'case 4711 is closed'

Exit codes:
  0  done
  1  list: there is no hold; remove: there was none; add: there was one
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written`;

export function holdCommand(): Command {
  const hold = new Command('hold')
    .description('legal holds: what must not be removed')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .addHelpText('after', EXPLANATION);
  withTarget(hold.command('add').description('set a hold'))
    .requiredOption('--reason <text>', 'why')
    .action(async (options: Target & { reason: string }, command: Command) => {
      const site = openSite(command);
      const hold = { ...parseTarget(options), ...stamp(options.reason) };
      if ((await add(site.settings, hold)) && globalOptions(command).json) printJson(hold);
    });
  withTarget(hold.command('remove').description('end a hold'))
    .requiredOption('--reason <text>', 'why')
    .action(async (options: Target & { reason: string }, command: Command) => {
      const site = openSite(command);
      const ended = { ...parseTarget(options), ...stamp(options.reason) };
      if ((await remove(site.settings, ended)) && globalOptions(command).json) printJson(ended);
    });
  hold
    .command('list')
    .description('list what is on hold')
    .action((_: unknown, command: Command) => list(openSite(command).settings, globalOptions(command).json));
  for (const child of hold.commands)
    child.helpOption('-h, --help', 'print this help').addHelpText('after', EXPLANATION);
  return hold;
}

function withTarget(command: Command): Command {
  return command.option('--client <id>', 'everything of a client').option('--job <id>', 'one job');
}

function parseTarget({ client, job }: Target): Pick<Hold, 'kind' | 'id'> {
  const kind = client === undefined ? 'job' : 'client';
  const id = client ?? job;
  if (id === undefined || (client !== undefined && job !== undefined))
    throw new Failure('usage', 'a hold is for --client or for --job');
  if (!isHoldId(kind, id)) throw new Failure('usage', `--${kind} is no ${kind} id`);
  return { kind, id };
}

function stamp(reason: string): Pick<Hold, 'reason' | 'by' | 'at'> {
  if (reason.trim() === '') throw new Failure('usage', '--reason is empty');
  return { reason, by: operatorName(), at: new Date().toISOString() };
}

/** The hold stands before it is on record: a kill between the two leaves too much held, never too little. False when it stood already. */
function add(settings: ServerSettings, hold: Hold): Promise<boolean> {
  const { kind, id, reason } = hold;
  return change(settings, (holds) => {
    const isNew = !holds.some((other) => other.kind === kind && other.id === id);
    if (isNew) {
      writeHolds(settings, [...holds, hold]);
      recordEvent(settings, { event: 'hold', kind, id, reason });
    }
    say(isNew ? `${kind} ${id} is on hold` : `${kind} ${id} is on hold already`);
    return isNew;
  });
}

/** False when there was none. */
function remove(settings: ServerSettings, { kind, id, reason }: Hold): Promise<boolean> {
  return change(settings, (holds) => {
    const others = holds.filter((hold) => hold.kind !== kind || hold.id !== id);
    const isThere = others.length < holds.length;
    if (isThere) {
      recordEvent(settings, { event: 'release', kind, id, reason });
      writeHolds(settings, others);
    }
    say(isThere ? `${kind} ${id} is on hold no longer` : `${kind} ${id} is not on hold`);
    return isThere;
  });
}

/** Whether there was something to do, which the exit code tells, too. */
function change(settings: ServerSettings, act: (holds: Hold[]) => boolean): Promise<boolean> {
  return inTurn(settings, 'holds', () => {
    const isDone = act(readHolds(settings));
    if (!isDone) process.exitCode = EXIT_CODES.findings;
    return isDone;
  });
}

function list(settings: ServerSettings, json: true | undefined): void {
  const holds = readHolds(settings);
  if (json) for (const hold of holds) printJson(hold);
  else if (holds.length > 0) {
    const columns = (['kind', 'id', 'at', 'by', 'reason'] as const).map((name) => ({
      title: name.toUpperCase(),
      value: (hold: Hold) => hold[name],
    }));
    for (const line of formatTable(holds, columns)) printLine(line);
  }
  if (holds.length === 0) process.exitCode = EXIT_CODES.findings;
}
