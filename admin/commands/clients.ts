// webjobctl clients: shows when each client was last seen, and how its jobs went.
import { Command } from 'commander';
import { formatTime } from 'webjob-protocol';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES } from '../../cli/failure.ts';
import {
  type Column,
  formatBytes,
  formatTable,
  hasColours,
  paint,
  printJson,
  printLines,
  startProgress,
} from '../../cli/output.ts';
import { isOverdue } from '../../fleet/expect.ts';
import { JOB_STATES, type JobState } from '../../ledger/job.ts';
import { type ClientTotals, makeClientTotals, readSums } from '../../ledger/jobs.ts';
import { listProfiles } from '../clients/profiles.ts';
import { clientOption } from '../site/client-option.ts';
import { openSitesOrLedger } from '../site/ledger.ts';
import { globalOptions, type Site } from '../site/site.ts';

interface Options {
  expect?: number;
  since?: Date;
  client?: string;
}

interface Client extends ClientTotals {
  clientId: string;
}

const EXPLANATION = `
Lists clients that are in the log or the locker, or have a profile directory. A client was seen when the server last
answered it with success; a refused request may be from somebody else. The failure rate is the fraction of failed,
refused and incomplete jobs among those that ended; requests that others made in its name do not count.

Examples:
  webjobctl clients --expect 24h
  webjobctl --json clients --since 7d | jq -r 'select(.failureRate > 0.1).client'

Exit codes:
  0  no client is silent
  1  with --expect: a client is silent; else: no clients
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function clientsCommand(): Command {
  return new Command('clients')
    .description('list clients: last seen, and how their jobs went')
    .option('--expect <DURATION>', 'mark clients that were not seen for this long, as in 24h', parseDuration)
    .option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 30d', parseInstant)
    .addOption(clientOption())
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) =>
      listClients(await openSitesOrLedger(command), options, globalOptions(command).json === true),
    );
}

async function listClients(sites: readonly Site[], options: Options, isJson: boolean): Promise<void> {
  const clients = await collectClients(sites, options);
  const { expect } = options;
  const now = new Date();
  const isSilent = ({ seenAt }: Client): boolean => expect !== undefined && isOverdue(seenAt, expect, now);
  const rows = [...clients.values()].sort((a, b) => (a.clientId < b.clientId ? -1 : 1));
  if (isJson)
    for (const client of rows) printJson(clientJson(client, expect === undefined ? undefined : isSilent(client)));
  else if (rows.length > 0) {
    const [titles = '', ...lines] = formatTable(
      rows,
      makeColumns(
        sites.every(({ settings }) => settings.useGMT),
        isSilent,
      ),
    );
    const isMarked = (index: number): boolean => isSilent(rows[index] as Client);
    const marked = hasColours() ? lines.map((line, index) => (isMarked(index) ? paint(line, 'red') : line)) : lines;
    printLines([titles, ...marked]);
  }
  if (expect !== undefined ? rows.some(isSilent) : rows.length === 0) process.exitCode = EXIT_CODES.findings;
}

async function collectClients(sites: readonly Site[], { since, client }: Options): Promise<Map<string, Client>> {
  const clients = new Map<string, Client>();
  const progress = startProgress('jobs');
  for (const site of sites) {
    const sums = await readSums(site, { since, client }, () => progress.advance());
    for (const [clientId, totals] of sums.clients) add(clients, clientId, totals);
  }
  progress.end();
  if (client === undefined) for (const clientId of sites.flatMap(listOwn)) add(clients, clientId, makeClientTotals());
  return clients;
}

/** Adds one site's facts about a client to those of other sites. */
function add(clients: Map<string, Client>, clientId: string, totals: ClientTotals): void {
  const known = clients.get(clientId);
  if (!known) {
    clients.set(clientId, Object.assign(totals, { clientId }));
    return;
  }
  for (const [state, count] of totals.states) known.states.set(state, (known.states.get(state) ?? 0) + count);
  for (const name of ['foreign', 'received', 'sent'] as const) known[name] += totals[name];
  if (totals.seenAt && !(known.seenAt && known.seenAt > totals.seenAt)) known.seenAt = totals.seenAt;
}

/** A site that reads logs of another machine need not have profiles. */
function listOwn({ settings }: Site): string[] {
  try {
    return listProfiles(settings);
  } catch {
    return [];
  }
}

function countOf({ states }: Client, state: JobState): number {
  return states.get(state) ?? 0;
}

function countJobs(client: Client): number {
  return JOB_STATES.reduce((sum, state) => sum + countOf(client, state), 0);
}

/** The fraction of ended jobs that went wrong, from 0 to 1; undefined while no job has ended. */
function failureRate(client: Client): number | undefined {
  const refused = countOf(client, 'refused') - client.foreign;
  const bad = countOf(client, 'failed') + refused + countOf(client, 'incomplete');
  const ended = bad + countOf(client, 'done');
  return ended === 0 ? undefined : Math.round((bad / ended) * 10_000) / 10_000;
}

function clientJson(client: Client, silent: boolean | undefined): Record<string, unknown> {
  return {
    client: client.clientId,
    lastSeen: client.seenAt?.toISOString() ?? null,
    silent: silent ?? null,
    jobs: countJobs(client),
    ...Object.fromEntries(JOB_STATES.map((state) => [state, countOf(client, state)])),
    foreign: client.foreign,
    bytesReceived: client.received,
    bytesSent: client.sent,
    failureRate: failureRate(client) ?? null,
  };
}

function makeColumns(useGMT: boolean, isSilent: (client: Client) => boolean): Column<Client>[] {
  const count = (state: JobState): Column<Client> => ({
    title: state.toUpperCase(),
    align: 'right',
    value: (client) => String(countOf(client, state)),
  });
  const percent = (rate: number | undefined): string => (rate === undefined ? '-' : `${(rate * 100).toFixed(1)}%`);
  return [
    { title: 'CLIENT', value: ({ clientId }) => clientId },
    {
      title: 'LAST SEEN',
      value: (client) =>
        (client.seenAt ? formatTime(client.seenAt, useGMT) : 'never') + (isSilent(client) ? ' silent' : ''),
    },
    { title: 'JOBS', align: 'right', value: (client) => String(countJobs(client)) },
    ...JOB_STATES.map(count),
    { title: 'RECEIVED', align: 'right', value: ({ received }) => formatBytes(received) },
    { title: 'SENT', align: 'right', value: ({ sent }) => formatBytes(sent) },
    { title: 'FAILURES', align: 'right', value: (client) => percent(failureRate(client)) },
  ];
}
