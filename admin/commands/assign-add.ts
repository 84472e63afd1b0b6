// webjobctl assign add: a command, whom it is for, and when.
import { Command, InvalidArgumentError } from 'commander';
import { isFileName } from 'webjob-protocol';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { type Assignment, MAX_ARGUMENT_BYTES, type Rollout } from '../../fleet/assignment.ts';
import { parseCron, type Schedule } from '../../fleet/due.ts';
import { readGroups } from '../../ledger/groups.ts';
import { type Desk, type DeskOptions, openDesk, userFileOption } from '../clients/desk.ts';
import { addAssignment, checkBatch, describeAssignment } from '../fleet/assigning.ts';
import { findTargets, listClientIds } from '../fleet/clients.ts';
import { collectTargets } from '../fleet/options.ts';

interface Options extends DeskOptions {
  to: string[];
  once?: true;
  every?: number;
  cron?: string;
  notBefore?: Date;
  until?: Date;
  reason?: string;
  limit?: number;
  stages?: number[];
  stopAtFailureRate?: number;
  stageTime?: number;
}

const EXPLANATION = `
WHO is a client id, a glob of client ids, or a group of the file ConfigDirectory/nph-webjob/groups, which has a line
"name = member member" for each. Times of --cron are UTC. Arguments that begin with - follow a --.

Examples:
  webjobctl assign host.sh --to client1 --reason 'case 4711'
  webjobctl assign --to 'web-*,db' --cron '30 2 * * *' --until 2027-01-01 -- check.sh -v 'two words'

Exit codes:
  0  assigned
  1  assigned, but it is for nobody the site has heard of
  2  wrong command line
  3  nph-webjob.cfg cannot be used, or has no BatchCommand
  4  a file cannot be read or written`;

export function addCommand(): Command {
  return new Command('add')
    .description('assign a command to clients')
    .argument('<command>', 'its name in the profiles', parseCommand)
    .argument('[args...]', 'its arguments')
    .requiredOption('--to <who>', 'a client, a glob or a group; several with commas, or again', collectTargets)
    .option('--once', 'once for each client (the default)')
    .option('--every <duration>', 'again after this long: 10m, 1h, 7d', parseDuration)
    .option('--cron <expression>', 'five fields of crontab(5), in UTC', checkCron)
    .option('--not-before <time>', 'the first time it is due (else now)', parseFuture)
    .option('--until <time>', 'give it to no client after this time', parseFuture)
    .option('--limit <n>', 'at most this many clients at once', parseLimit)
    .option('--stages <parts>', 'reach them in stages: 1%,10%,100%', parseStages)
    .option('--stop-at-failure-rate <part>', 'pause it when a larger part of the results is bad: 5%', parsePart)
    .option('--stage-time <duration>', 'advance after this long even if results are missing', parseDuration)
    .option('--reason <text>', 'why, for the record')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, args: string[], options: Options, command: Command) =>
      add(openDesk(command), name, args, options),
    );
}

async function add(desk: Desk, command: string, args: string[], options: Options): Promise<void> {
  checkBatch(desk.settings, command);
  const size = args.reduce((sum, arg) => sum + Buffer.byteLength(arg) + 1, 0);
  if (size > MAX_ARGUMENT_BYTES)
    throw new Failure('usage', `the arguments are ${size} bytes, and ${MAX_ARGUMENT_BYTES} are the most`);
  const now = Math.floor(Date.now() / 1000);
  const from = options.notBefore ? Math.floor(options.notBefore.getTime() / 1000) : now;
  const until = options.until && Math.floor(options.until.getTime() / 1000);
  if (until !== undefined && until <= from) throw new Failure('usage', '--until is not behind its first time');
  const groups = readGroups(desk.settings);
  const targets = findTargets(options, groups, listClientIds(desk));
  const { to, reason, limit } = options;
  const plan = { command, args, to, schedule: scheduleOf(options), from, until, reason, limit };
  const assignment = await addAssignment(desk.settings, plan, rolloutOf(options, now), targets);
  if (desk.isJson) printJson({ ...describeAssignment(assignment), clients: targets.length });
  else
    printLine(`assignment ${assignment.id}: ${command} for ${targets.length} client${targets.length === 1 ? '' : 's'}`);
  if (targets.length > 0) return;
  say(`warning: it is for nobody yet: ${options.to.join(', ')} means no client of the site`);
  process.exitCode = 1;
}

function rolloutOf({ stages, stopAtFailureRate, stageTime }: Options, now: number): Rollout | undefined {
  if (stages) return { stages, stage: 0, openedAt: now, stopAt: stopAtFailureRate, seconds: stageTime };
  if (stopAtFailureRate === undefined && stageTime === undefined) return undefined;
  throw new Failure('usage', '--stop-at-failure-rate and --stage-time are for --stages', '--stages 1%,10%,100%');
}

function scheduleOf({ once, every, cron }: Options): Schedule {
  if ([once, every, cron].filter((value) => value !== undefined).length > 1)
    throw new Failure('usage', 'give one of --once, --every and --cron');
  if (cron !== undefined) return { kind: 'cron', cron };
  return every === undefined ? { kind: 'once' } : { kind: 'every', seconds: every };
}

function parseCommand(text: string): Assignment['command'] {
  if (isFileName(text) && !text.startsWith('-')) return text;
  throw new InvalidArgumentError('a command is 1 to 1024 letters, digits and _ + . : -, and does not begin with -.');
}

function parseLimit(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a limit is 1 to 9999 clients.');
}

/** `5%` or `0.05`, from 0 to 1. */
function parsePart(text: string): number {
  const part = /^\d{1,3}(?:\.\d+)?%$/.test(text)
    ? Number.parseFloat(text) / 100
    : /^[01](?:\.\d+)?$/.test(text)
      ? Number(text)
      : 2;
  if (part <= 1) return part;
  throw new InvalidArgumentError('a part is 0% to 100%.');
}

function parseStages(text: string): number[] {
  const parts = text.split(',').map(parsePart);
  if (parts.every((part, index) => part > (parts[index - 1] ?? 0)) && parts.at(-1) === 1) return parts;
  throw new InvalidArgumentError('stages are parts, each larger than the one before, and the last one is 100%.');
}

function checkCron(text: string): string {
  try {
    parseCron(text);
    return text;
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`);
  }
}

/** A time that comes: a span from now, or what parseInstant takes. */
function parseFuture(text: string): Date {
  if (/^[0-9]+[smhdw]$/.test(text)) return new Date(Date.now() + parseDuration(text) * 1000);
  return parseInstant(text);
}
