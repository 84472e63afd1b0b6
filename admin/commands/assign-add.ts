// webjobctl assign add: assigns a command to clients, once or on a schedule.
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { matchesGlob } from 'webjob-protocol';
import { overrideSettings } from '../../cgi/overrides.ts';
import { readSettings } from '../../cgi/settings.ts';
import { countOf } from '../../cli/counts.ts';
import { parseDuration } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { quote } from '../../cli/shell.ts';
import type { Rollout } from '../../fleet/assignment.ts';
import { type Groups, membersOf } from '../../fleet/groups.ts';
import { readGroups } from '../../ledger/groups.ts';
import { type FoundAssignment, readAssignment, signAssignment } from '../../sign/assignments.ts';
import { readNoteSigner, readPrivateKey } from '../../sign/keys.ts';
import { type Context, type ContextOptions, openContext, userFileOption } from '../clients/context.ts';
import { addAssignment, checkBatch, describeAssignment, endSigned } from '../fleet/assigning.ts';
import { findTargets, listClientIds } from '../fleet/clients.ts';
import {
  checkArguments,
  checkCron,
  collectTargets,
  parseCommand,
  parseFuture,
  type TimeOptions,
  type Times,
  timesOf,
} from '../fleet/options.ts';
import { findPropertiesFile } from '../site/site.ts';

interface Options extends ContextOptions, TimeOptions {
  to?: string[];
  signed?: string;
  key?: string;
  keyName?: string;
  reason?: string;
  limit?: number;
  stages?: number[];
  stopAtFailureRate?: number;
  stageTime?: number;
}

const EXPLANATION = `
CLIENT is a client id, a glob of client ids, or a group of the file ConfigDirectory/nph-webjob/groups, which has a line
"name = member member" for each. Times of --cron are UTC. Arguments that begin with - follow a --.

Clients with DsvVerifyManifest=Y run only signed assignments. Sign on a machine other than the server, with "webjobctl
sign assignment", and assign the file with --signed. An assignment that --key signs ends after 30 days, or after a year
with --every or --cron, unless --until is given.

Examples:
  webjobctl assign host.sh --to client1 --reason 'case 4711'
  webjobctl assign --to 'web-*,db' --cron '30 2 * * *' --until 2027-01-01 -- check.sh -v 'two words'
  webjobctl assign --signed collect.assignment --stages 10%,100%

Exit codes:
  0  assigned
  1  assigned, but no client of the site matches yet
  2  wrong command line
  3  nph-webjob.cfg cannot be used, or has no BatchCommand
  4  a file cannot be read or written`;

export function addCommand(): Command {
  return new Command('add')
    .description('assign a command to clients')
    .argument('[COMMAND]', 'its name in the profiles', parseCommand)
    .argument('[ARGUMENT...]', 'its arguments')
    .option('--to <CLIENT>', 'clients, globs or groups, separated by commas; may be repeated', collectTargets)
    .option('--once', 'once for each client (the default)')
    .option('--every <DURATION>', 'repeat at this interval: 10m, 1h, 7d', parseDuration)
    .option('--cron <EXPRESSION>', 'five fields of crontab(5), in UTC', checkCron)
    .option('--not-before <TIME>', 'the first due time (default: now)', parseFuture)
    .option('--until <TIME>', 'no client gets it after this time', parseFuture)
    .option('--limit <NUMBER>', 'at most this many clients at once', parseLimit)
    .option('--stages <STAGES>', 'assign it in stages: 1%,10%,100%', parseStages)
    .option('--stop-at-failure-rate <PERCENT>', 'pause it when more of the results than this are bad: 5%', parsePart)
    .option('--stage-time <DURATION>', 'advance after this long even if results are missing', parseDuration)
    .option('--reason <TEXT>', 'the reason, for the custody record')
    .option('--signed <FILE>', 'assign the signed assignment in this file (webjobctl sign assignment)')
    .option('--key <FILE>', 'sign it with this private key, Ed25519')
    .option('--key-name <NAME>', 'the name of the key (default: the name in KEY.vkey, or of the file)')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string | undefined, args: string[], options: Options, command: Command) =>
      add(openContext(command), findPropertiesFile(command), name, args, options),
    );
}

async function add(
  context: Context,
  propertiesFile: string | undefined,
  command: string | undefined,
  args: string[],
  options: Options,
): Promise<void> {
  const now = Math.floor(Date.now() / 1000);
  const groups = readGroups(context.settings);
  const wanted =
    options.signed === undefined ? planOf(command, args, options, groups, now) : takeSigned(command, options);
  checkBatch(context.settings, wanted.command);
  const targets = findTargets(wanted, groups, listClientIds(context));
  checkSignatures(context, propertiesFile, targets);
  const stranger = options.signed !== undefined && targets.find((id) => !isMeant(wanted.signed, id));
  if (stranger) throw new Failure('usage', `${options.signed} is not for ${stranger}`, hintOf(wanted.signed, groups));
  const { signed, ...plan } = wanted;
  const { reason, limit } = options;
  const whole = { ...plan, reason, limit, note: signed?.note };
  const assignment = await addAssignment(context.settings, whole, rolloutOf(options, now), targets);
  if (context.isJson) printJson({ ...describeAssignment(assignment), clients: targets.length });
  else printLine(`assignment ${assignment.id}: ${wanted.command} for ${countOf(targets.length, 'client')}`);
  if (targets.length > 0) return;
  say(`warning: no client of the site matches ${wanted.to.join(', ')} yet`);
  process.exitCode = 1;
}

/**
 * Checks that the server gives batches to these clients. Throws Failure `settings`: a batch has no
 * signature, and the programs that it names are fetched one by one, each with its own.
 */
function checkSignatures({ settings }: Context, propertiesFile: string | undefined, targets: readonly string[]): void {
  const { batchCommand, configDirectory, enableConfigOverrides } = settings;
  // In a large fleet the settings seldom differ between clients, so only one client is checked.
  const client = targets[0] ?? '';
  let own = settings;
  try {
    if (enableConfigOverrides)
      own = overrideSettings(settings, readSettings(propertiesFile).given, client, batchCommand, () => {});
  } catch (error) {
    throw new Failure('settings', `the override of ${client}: ${(error as Error).message}`, 'webjobctl configtest');
  }
  if (!own.dsvRequireSignatures) return;
  const folder = join(configDirectory, 'nph-webjob', 'commands', batchCommand);
  throw new Failure(
    'settings',
    `DsvRequireSignatures=Y, and a batch has no signature: a client that asks for ${batchCommand} gets 459`,
    enableConfigOverrides
      ? `mkdir -p ${quote(folder)} && echo DsvRequireSignatures=N >> ${quote(join(folder, 'nph-webjob.cfg'))}`
      : 'set EnableConfigOverrides=Y, and DsvRequireSignatures=N for this command: docs/guide/fleet.md',
  );
}

/** The command, the times and the clients of the assignment, and its note if it is signed. */
interface Wanted extends Times {
  command: string;
  args: readonly string[];
  to: readonly string[];
  signed: FoundAssignment | undefined;
}

/** Plans an assignment from the command line. Throws Failure `usage`. */
function planOf(command: string | undefined, args: string[], options: Options, groups: Groups, now: number): Wanted {
  const { to, key, keyName } = options;
  if (command === undefined) throw new Failure('usage', "missing required argument 'COMMAND'");
  if (!to) throw new Failure('usage', "required option '--to <CLIENT>' not specified");
  if (keyName !== undefined && key === undefined) throw new Failure('usage', '--key-name requires --key');
  checkArguments(args);
  const times = timesOf(options, now);
  const plan = { command, args, to, ...times };
  if (key === undefined) return { ...plan, signed: undefined };
  const signer = readNoteSigner(key, readPrivateKey(key), keyName);
  const until = times.until ?? endSigned(times);
  const clients = [...membersOf(groups, to)];
  const { schedule, from } = times;
  const [notBefore, notAfter] = [new Date(from * 1000), new Date(until * 1000)];
  const text = { command, args, clients, schedule, notBefore, notAfter, serial: Date.now() };
  return { ...plan, until, signed: signAssignment(text, signer) };
}

/** The content of a file that was signed elsewhere. Throws Failure `usage`, `failed`. */
function takeSigned(command: string | undefined, options: Options): Wanted {
  const { signed: path = '', to, once, every, cron, notBefore, until, key } = options;
  if ([command, once, every, cron, notBefore, until, key].some((value) => value !== undefined))
    throw new Failure(
      'usage',
      '--signed takes the command and its times from the file',
      'omit the command and its times',
    );
  const signed = readAssignment(path);
  const { assignment } = signed;
  return {
    command: assignment.command,
    args: assignment.args,
    to: to ?? assignment.clients,
    signed,
    schedule: assignment.schedule,
    from: assignment.notBefore.getTime() / 1000,
    until: assignment.notAfter.getTime() / 1000,
  };
}

/** A signed name is compared with client ids only, even if a group of the site has this name. */
function hintOf(signed: FoundAssignment | undefined, groups: Groups): string {
  const group = signed?.assignment.clients.find((word) => groups.has(word));
  return group === undefined
    ? '--to selects some of its clients'
    : `${group} was signed as the name of a client, and is a group here: sign its members, with webjobctl sign assignment --groups`;
}

function isMeant(signed: FoundAssignment | undefined, clientId: string): boolean {
  return signed?.assignment.clients.some((glob) => matchesGlob(glob, clientId)) ?? true;
}

function rolloutOf({ stages, stopAtFailureRate, stageTime }: Options, now: number): Rollout | undefined {
  if (stages) return { stages, stage: 0, openedAt: now, stopAt: stopAtFailureRate, seconds: stageTime };
  if (stopAtFailureRate === undefined && stageTime === undefined) return undefined;
  throw new Failure('usage', '--stop-at-failure-rate and --stage-time require --stages', '--stages 1%,10%,100%');
}

function parseLimit(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a limit is 1 to 9999 clients.');
}

/** Parses `5%` or `0.05`, from 0 to 1. */
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
  throw new InvalidArgumentError('stages are percentages, each larger than the one before; the last one is 100%.');
}
