// webjobctl alert: checks a site by its rules, and sends messages when something changes.
import { randomBytes } from 'node:crypto';
import { Command } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, printLine, safeLine, say } from '../../cli/output.ts';
import { recordEvent } from '../../evidence/events.ts';
import { isQuiet, type Rules } from '../../fleet/expect.ts';
import { fleetPaths } from '../../fleet/paths.ts';
import { nameChannel, ping, send } from '../alerts/channels.ts';
import { type Attempt, deliver } from '../alerts/deliver.ts';
import { describeEvent, describeJson, writeLetter } from '../alerts/message.ts';
import { findProblems } from '../alerts/problems.ts';
import { type AlertEvent, type AlertState, readState, takeLook, writeState } from '../alerts/state.ts';
import { type Context, type ContextOptions, openContext, userFileOption } from '../clients/context.ts';
import { readRules } from '../fleet/expectations.ts';
import { openSite, type Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

interface Options extends ContextOptions {
  rules?: string;
  dryRun?: true;
  test?: true;
}

const EXPLANATION = `
The rules are in ConfigDirectory/nph-webjob/expect: what is expected of clients, what to warn about, and whom to notify. A
problem is reported once when it begins and once when it ends. A message that is not accepted is sent again by later
runs, at growing intervals, with the same id. When nothing is wrong and nothing is left to send, the URL of "ping" is
requested.

Examples:
  */5 * * * * root  webjobctl alert
  webjobctl alert --dry-run

Exit codes:
  0  nothing is wrong
  1  there are problems, and all messages were sent
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a message could not be sent so far, or a file cannot be read or written`;

export function alertCommand(): Command {
  return new Command('alert')
    .description('check the rules and send alerts about changes; for cron')
    .option('--rules <FILE>', 'the rules (default: ConfigDirectory/nph-webjob/expect)')
    .option('--dry-run', 'print the problems and the messages; send and record nothing')
    .option('--test', 'send a test message over every channel')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) => alert(openSite(command), openContext(command), options));
}

async function alert(site: Site, context: Context, options: Options): Promise<void> {
  const { settings } = site;
  const rules = readRules(settings, options.rules);
  if (!rules) {
    const path = options.rules ?? fleetPaths(settings).expect;
    throw new Failure('failed', `there is no ${path}`, 'docs/guide/alerts.md describes the rules');
  }
  if (options.test && options.dryRun) throw new Failure('usage', 'use one of --test and --dry-run');
  if (options.test) return await sendTest(site, context, rules);
  await withSiteLock(settings, options.dryRun ? undefined : 'alert', async () => {
    const state = readState(settings);
    const now = new Date();
    const found = await findProblems({ site, context, rules }, state, now);
    const policy = {
      channels: rules.channels.map(nameChannel),
      remind: rules.remind,
      isQuiet: isQuiet(rules, minutesOfDay(now, settings.useGMT)),
    };
    state.verified = found.verified;
    const events = takeLook(state, found, policy, now.getTime());
    for (const event of events) printEvent(event, context.isJson);
    if (state.problems.length > 0) process.exitCode = EXIT_CODES.findings;
    if (options.dryRun) printDryRun(state, events, context.isJson, policy.isQuiet);
    else await tell({ site, rules, state, events, isJson: context.isJson });
  });
}

function minutesOfDay(at: Date, useGMT: boolean): number {
  return useGMT ? at.getUTCHours() * 60 + at.getUTCMinutes() : at.getHours() * 60 + at.getMinutes();
}

interface Round {
  site: Site;
  rules: Rules;
  state: AlertState;
  events: AlertEvent[];
  isJson: boolean;
}

async function tell({ site, rules, state, events, isJson }: Round): Promise<void> {
  const { settings } = site;
  const keep = (): void => writeState(settings, state);
  if (events.length > 0) record(site, events);
  keep();
  const attempts = await deliver({ state, rules, site: siteName(site), keep });
  for (const attempt of attempts) printAttempt(attempt, isJson);
  if (state.outbox.length > 0) process.exitCode = EXIT_CODES.failed;
  else if (rules.ping !== undefined && state.problems.length === 0) await ping(rules.ping, rules.timeout);
}

/** The maximum number of problems in one entry of the custody record. */
const MOST_RECORDED = 100;

function record({ settings }: Site, events: readonly AlertEvent[]): void {
  for (let at = 0; at < events.length; at += MOST_RECORDED) {
    const part = events.slice(at, at + MOST_RECORDED).filter(({ kind }) => kind !== 'goes on');
    const keys = (kind: AlertEvent['kind']): string[] => part.flatMap((one) => (one.kind === kind ? [one.key] : []));
    if (part.length > 0) recordEvent(settings, { event: 'alert', begun: keys('begun'), ended: keys('ended') });
  }
}

function siteName({ settings }: Site): string {
  return settings.serverId;
}

async function sendTest(site: Site, context: Context, rules: Rules): Promise<void> {
  if (rules.channels.length === 0) throw new Failure('findings', 'the rules have no line that begins with tell');
  const now = Date.now();
  const test: AlertEvent = {
    kind: 'begun',
    key: 'test',
    what: 'this is a test, and nothing is wrong',
    where: site.settings.serverId,
    beganAt: now,
    at: now,
  };
  for (const channel of rules.channels) {
    const message = { id: randomBytes(16).toString('hex'), at: now, events: [test] };
    const attempt: Attempt = { channel: nameChannel(channel), messageId: message.id, attempt: 1, error: undefined };
    try {
      await send(channel, writeLetter(message, siteName(site), 1), 1, rules.timeout);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      attempt.error = error.message;
      process.exitCode = EXIT_CODES.failed;
    }
    printAttempt(attempt, context.isJson);
  }
}

function printEvent(event: AlertEvent, isJson: boolean): void {
  if (isJson) printJson(describeJson(event));
  else printLine(safeLine(describeEvent(event)));
}

function printAttempt({ channel, messageId, attempt, error }: Attempt, isJson: boolean): void {
  if (isJson) printJson({ channel, message: messageId, attempt, sent: error === undefined, error: error ?? null });
  else if (error === undefined) printLine(`sent     ${safeLine(channel)}: ${messageId}`);
  else say(`not sent, ${safeLine(channel)}: ${error}`);
}

/** Prints the current problems, and the messages that would be sent. */
function printDryRun(state: AlertState, events: readonly AlertEvent[], isJson: boolean, quiet: boolean): void {
  const told = new Set(events.map(({ key }) => key));
  for (const problem of state.problems.filter(({ key }) => !told.has(key)))
    printEvent({ ...problem, kind: 'goes on', at: problem.toldAt }, isJson);
  for (const { messageId, channel, attempts } of state.outbox) {
    if (isJson) printJson({ channel, message: messageId, attempt: attempts + 1, sent: false, error: null });
    else
      printLine(
        `to send  ${safeLine(channel)}: ${countOf(state.messages.find(({ id }) => id === messageId)?.events.length ?? 0, 'event')}`,
      );
  }
  if (quiet && !isJson && state.held.length > 0)
    printLine(`quiet    ${countOf(state.held.length, 'event')} until the quiet hours end`);
}
