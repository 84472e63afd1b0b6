// webjobctl clients: who was heard of when, and how their jobs went.
import { readdirSync } from 'node:fs';
import { Command } from 'commander';
import { formatTime, isClientId, isSuccess } from 'webjob-protocol';
import { parseDuration, parseInstant } from '../durations.ts';
import { EXIT_CODES } from '../failure.ts';
import { instantOf } from '../history/log.ts';
import { readSites } from '../history/sites.ts';
import { JOB_STATES, type Job, type JobState } from '../job.ts';
import { type Column, formatBytes, formatTable, paint, printJson, printLine, startProgress } from '../output.ts';
import { globalOptions, openSites, type Site } from '../site.ts';

interface Options {
  expect?: number;
  since?: Date;
  client?: string;
}

interface Client {
  clientId: string;
  /** The last request that the server answered with success: anybody can be refused in a client's name. */
  lastSeen: Date | undefined;
  states: Record<JobState, number>;
  bytesReceived: number;
  bytesSent: number;
}

const EXPLANATION = `
A client is one that the log or the locker names, or that has a folder of its own below ProfilesDirectory. It was seen
when the server last answered it with success: who is refused may be somebody else. The failure rate is the part of
failed, refused and incomplete jobs among those that ended.

Examples:
  webjobctl clients --expect 24h
  webjobctl --json clients --since 7d | jq -r 'select(.failureRate > 0.1).client'

Exit codes:
  0  no client is silent
  1  with --expect: a client is silent; else: there is none
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function clientsCommand(): Command {
  return new Command('clients')
    .description('list clients: last seen, and how their jobs went')
    .option('--expect <span>', 'mark clients as silent that were not seen for so long, as in 24h', parseDuration)
    .option('--since <time>', 'of jobs since: 2026-11-01, "2026-11-01 12:00", or a span as in 30d', parseInstant)
    .option('--client <glob>', 'of these clients: * is any text, ? any character')
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) =>
      listClients(openSites(command), options, globalOptions(command).json === true),
    );
}

async function listClients(sites: readonly Site[], options: Options, isJson: boolean): Promise<void> {
  const clients = await collectClients(sites, options);
  const silentBefore = options.expect === undefined ? undefined : new Date(Date.now() - options.expect * 1000);
  const isSilent = ({ lastSeen }: Client): boolean => !!silentBefore && (!lastSeen || lastSeen < silentBefore);
  const rows = [...clients.values()].sort((a, b) => (a.clientId < b.clientId ? -1 : 1));
  if (isJson) for (const client of rows) printJson(clientJson(client, silentBefore && isSilent(client)));
  else if (rows.length > 0) {
    const [titles = '', ...lines] = formatTable(
      rows,
      makeColumns(
        sites.every(({ settings }) => settings.useGMT),
        isSilent,
      ),
    );
    printLine(titles);
    for (const [index, line] of lines.entries()) {
      const client = rows[index];
      printLine(client && isSilent(client) ? paint(line, 'red') : line);
    }
  }
  if (silentBefore ? rows.some(isSilent) : rows.length === 0) process.exitCode = EXIT_CODES.findings;
}

async function collectClients(sites: readonly Site[], { since, client }: Options): Promise<Map<string, Client>> {
  const clients = new Map<string, Client>();
  const find = (clientId: string): Client => {
    const known = clients.get(clientId) ?? makeClient(clientId);
    clients.set(clientId, known);
    return known;
  };
  const progress = startProgress('jobs');
  for await (const { site, job } of readSites(sites, { since, client })) {
    progress.advance();
    if (job.clientId !== undefined) addJob(site, find(job.clientId), job);
  }
  progress.end();
  for (const clientId of sites.flatMap(listProfiles)) if (client === undefined) find(clientId);
  return clients;
}

function makeClient(clientId: string): Client {
  const states = Object.fromEntries(JOB_STATES.map((state) => [state, 0])) as Record<JobState, number>;
  return { clientId, lastSeen: undefined, states, bytesReceived: 0, bytesSent: 0 };
}

function addJob(site: Site, client: Client, job: Job): void {
  client.states[job.state]++;
  for (const line of [job.get, job.put]) {
    if (!line || !isSuccess(line.status)) continue;
    const at = instantOf(line, site);
    if (!client.lastSeen || at > client.lastSeen) client.lastSeen = at;
    if (line.method === 'GET') client.bytesSent += line.bytesSent;
    else client.bytesReceived += line.bytesReceived ?? 0;
  }
}

/** Clients that have commands of their own; the folders of FolderList are not theirs. */
function listProfiles({ settings }: Site): string[] {
  const shared = settings.folderList.split(':');
  try {
    return readdirSync(settings.profilesDirectory, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() && isClientId(entry.name) && !shared.includes(entry.name) ? [entry.name] : [],
    );
  } catch {
    return [];
  }
}

function countJobs({ states }: Client): number {
  return JOB_STATES.reduce((sum, state) => sum + states[state], 0);
}

/** Undefined while no job has ended. */
function failureRate({ states }: Client): number | undefined {
  const bad = states.failed + states.refused + states.incomplete;
  const ended = bad + states.done;
  return ended === 0 ? undefined : Math.round((bad / ended) * 10_000) / 10_000;
}

function clientJson(client: Client, silent: boolean | undefined): Record<string, unknown> {
  return {
    ...{ client: client.clientId, lastSeen: client.lastSeen?.toISOString() ?? null, silent: silent ?? null },
    ...{ jobs: countJobs(client), ...client.states },
    ...{ bytesReceived: client.bytesReceived, bytesSent: client.bytesSent, failureRate: failureRate(client) ?? null },
  };
}

function makeColumns(useGMT: boolean, isSilent: (client: Client) => boolean): Column<Client>[] {
  const count = (state: JobState): Column<Client> => ({
    ...{ title: state.toUpperCase(), align: 'right', value: ({ states }) => String(states[state]) },
  });
  const percent = (rate: number | undefined): string => (rate === undefined ? '-' : `${(rate * 100).toFixed(1)} %`);
  return [
    { title: 'CLIENT', value: ({ clientId }) => clientId },
    {
      title: 'LAST SEEN',
      value: (client) =>
        (client.lastSeen ? formatTime(client.lastSeen, useGMT) : 'never') + (isSilent(client) ? ' silent' : ''),
    },
    { title: 'JOBS', align: 'right', value: (client) => String(countJobs(client)) },
    ...JOB_STATES.map(count),
    { title: 'RECEIVED', align: 'right', value: ({ bytesReceived }) => formatBytes(bytesReceived) },
    { title: 'SENT', align: 'right', value: ({ bytesSent }) => formatBytes(bytesSent) },
    { title: 'FAILURES', align: 'right', value: (client) => percent(failureRate(client)) },
  ];
}
