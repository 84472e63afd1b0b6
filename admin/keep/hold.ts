// webjobctl hold: what must not be removed, for whom and why. A hold counts from the moment it is set, also for a prune that is at work.
import { Command } from 'commander';
import type { ServerSettings } from '../../cgi/controls.ts';
import { Failure } from '../failure.ts';
import { formatTable, printJson, printLine, say } from '../output.ts';
import { globalOptions, openSite } from '../site.ts';
import { operatorName, recordEvent } from './custody.ts';
import { type Hold, isHoldId, readHolds, writeHolds } from './holds.ts';
import { inTurn } from './turn.ts';

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

Exit codes: 0 done, 1 list: there is no hold; remove: there was none; add: there was one, 2 wrong command line, 3 wrong settings,
4 a file could not be read or written`;

export function holdCommand(): Command {
  const hold = new Command('hold')
    .description('legal holds: what must not be removed')
    .addHelpText('after', EXPLANATION);
  withTarget(hold.command('add').description('set a hold'))
    .requiredOption('--reason <text>', 'why')
    .action(async (options: Target & { reason: string }, command: Command) => {
      const site = openSite(command);
      await add(site.settings, { ...parseTarget(options), ...stamp(options.reason) });
    });
  withTarget(hold.command('remove').description('end a hold'))
    .requiredOption('--reason <text>', 'why')
    .action(async (options: Target & { reason: string }, command: Command) => {
      const site = openSite(command);
      await remove(site.settings, parseTarget(options), options.reason);
    });
  hold
    .command('list')
    .description('list what is on hold')
    .action((_: unknown, command: Command) => list(openSite(command).settings, globalOptions(command).json));
  for (const child of hold.commands) child.addHelpText('after', EXPLANATION);
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

/** The hold stands before it is on record: a kill between the two leaves too much held, never too little. */
async function add(settings: ServerSettings, hold: Hold): Promise<void> {
  await change(settings, (holds) => {
    if (holds.some(({ kind, id }) => kind === hold.kind && id === hold.id)) {
      say(`${hold.kind} ${hold.id} is on hold already`);
      process.exitCode = 1;
      return;
    }
    writeHolds(settings, [...holds, hold]);
    recordEvent(settings, { event: 'hold', kind: hold.kind, id: hold.id, reason: hold.reason });
    say(`${hold.kind} ${hold.id} is on hold`);
  });
}

async function remove(settings: ServerSettings, target: Pick<Hold, 'kind' | 'id'>, reason: string): Promise<void> {
  stamp(reason);
  await change(settings, (holds) => {
    const others = holds.filter(({ kind, id }) => kind !== target.kind || id !== target.id);
    if (others.length === holds.length) {
      say(`${target.kind} ${target.id} is not on hold`);
      process.exitCode = 1;
      return;
    }
    recordEvent(settings, { event: 'release', ...target, reason });
    writeHolds(settings, others);
    say(`${target.kind} ${target.id} is on hold no longer`);
  });
}

function change(settings: ServerSettings, act: (holds: Hold[]) => void): Promise<void> {
  return inTurn(settings, 'holds', () => act(readHolds(settings)));
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
  if (holds.length === 0) process.exitCode = 1;
}
