// Checks expectations: the rules in a site's file `expect`, applied to the newest result of each
// client.
import { existsSync, readFileSync } from 'node:fs';
import { parseEpoch } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { formatSpan } from '../../cli/spans.ts';
import { type Expectation, ExpectError, isOverdue, parseExpect, type Rules } from '../../fleet/expect.ts';
import { type Groups, makeMembership, namedClients } from '../../fleet/groups.ts';
import { fleetPaths } from '../../fleet/paths.ts';
import { digestStream } from '../../ledger/digest.ts';
import { parseRecordFields } from '../../ledger/ending.ts';
import { describeExit } from '../../ledger/fields.ts';
import { MAX_HEAD_BYTES } from '../../ledger/head.ts';
import type { Job } from '../../ledger/job.ts';
import { findJobs, readSums } from '../../ledger/jobs.ts';
import { findEarlier, findNewestUpTo, newestOfEach } from '../../ledger/scan.ts';
import type { Site } from '../../ledger/site.ts';
import type { Database } from '../../ledger/sqlite.ts';
import { openStore } from '../../ledger/store.ts';
import { findJobStreams } from '../../ledger/streams.ts';

/** The ways in which an expectation can be missed. */
export const MISSED_KINDS = ['late', 'exit', 'output', 'duration'] as const;

/** An expectation that is missed. */
export interface Missed {
  clientId: string;
  /** `*` for any job. */
  command: string;
  kind: (typeof MISSED_KINDS)[number];
  /** The line of the rule. */
  line: number;
  /** The problem, as a part of a sentence. */
  detail: string;
  /** The job that shows the problem. */
  jobId: string | undefined;
}

/**
 * Reads the rules of a file; undefined when there is none. Throws a Failure `failed` that names the
 * line.
 */
export function readRules(settings: ServerSettings, path = fleetPaths(settings).expect): Rules | undefined {
  try {
    return existsSync(path) ? parseExpect(readFileSync(path, 'utf8')) : undefined;
  } catch (error) {
    const reason = error instanceof ExpectError ? error.message : errorCode(error);
    throw new Failure('failed', `${path} cannot be read: ${reason}`, 'webjobctl configtest');
  }
}

const DAY_MS = 86_400_000;
/** The number of days that are searched for results when the rule does not set a time. */
const USUAL_DAYS = 30;

/**
 * The expectations that are missed now, by client and command. When several rules report the same
 * about a client, the first one counts. `clientIds` are the clients of the site; clients that a
 * rule or its group names are expected as well. Throws Failure `failed`.
 */
export async function findMissed(
  site: Site,
  expectations: readonly Expectation[],
  groups: Groups,
  clientIds: readonly string[],
  now = new Date(),
): Promise<Missed[]> {
  const missed = new Map<string, Missed>();
  const add = (one: Missed): void => {
    const key = `${one.clientId} ${one.command} ${one.kind}`;
    if (!missed.has(key)) missed.set(key, one);
  };
  const membership = new Map(clientIds.map((clientId) => [clientId, makeMembership(groups, clientId)]));
  const clientsOf = ({ who }: Expectation): Set<string> => {
    const meant = clientIds.filter((clientId) => membership.get(clientId)?.(who));
    return new Set([...meant, ...namedClients(groups, [who])]);
  };
  for (const one of await findSilent(site, expectations, clientsOf, now)) add(one);
  const rules = expectations.filter(({ command }) => command !== '*');
  if (rules.length > 0) {
    const store = await openStore(site, { since: new Date(Math.min(...rules.map((rule) => startOf(rule, now)))) });
    try {
      for (const command of new Set(rules.map((rule) => rule.command))) {
        const jobs = newestOfEach(store.database, site, { command }, { limit: Number.MAX_SAFE_INTEGER });
        const newest = new Map(jobs.map((job) => [job.clientId ?? '', job]));
        for (const rule of rules.filter((one) => one.command === command))
          for (const clientId of clientsOf(rule))
            for (const one of await judge(site, store.database, rule, clientId, newest.get(clientId), now)) add(one);
      }
    } finally {
      store.close();
    }
  }
  const order = (one: Missed): string => `${one.clientId} ${one.command} ${MISSED_KINDS.indexOf(one.kind)}`;
  return [...missed.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

/** The time in milliseconds since which results matter for a rule. */
function startOf({ within = 0, same }: Expectation, now: Date): number {
  const usual = now.getTime() - Math.max(within * 1000, USUAL_DAYS * DAY_MS);
  return same?.as === 'date' ? Math.min(usual, same.date.getTime() - USUAL_DAYS * DAY_MS) : usual;
}

/** Finds clients from which no request was ever seen. */
async function findSilent(
  site: Site,
  expectations: readonly Expectation[],
  clientsOf: (rule: Expectation) => Set<string>,
  now: Date,
): Promise<Missed[]> {
  const rules = expectations.filter(({ command }) => command === '*');
  if (rules.length === 0) return [];
  const longest = Math.max(...rules.map(({ within }) => within ?? 0));
  const { clients } = await readSums(site, { since: new Date(now.getTime() - longest * 1000 - DAY_MS) });
  return rules.flatMap((rule) =>
    [...clientsOf(rule)].flatMap((clientId): Missed[] => {
      const seenAt = clients.get(clientId)?.seenAt;
      if (!isOverdue(seenAt, rule.within ?? 0, now)) return [];
      return [
        { clientId, command: '*', kind: 'late', line: rule.line, detail: describeLate(seenAt, rule), jobId: undefined },
      ];
    }),
  );
}

function describeLate(at: Date | undefined, { within = 0, command }: Expectation): string {
  const last = at === undefined ? 'none is on record' : `the last one was at ${at.toISOString()}`;
  return `no ${command === '*' ? 'request' : 'result'} within ${formatSpan(within)}: ${last}`;
}

async function judge(
  site: Site,
  database: Database,
  rule: Expectation,
  clientId: string,
  job: Job | undefined,
  now: Date,
): Promise<Missed[]> {
  const { command, line, within, exit, longest, same } = rule;
  const missed: Missed[] = [];
  const miss = (kind: Missed['kind'], detail: string): void => {
    missed.push({ clientId, command, kind, line, detail, jobId: job?.jobId });
  };
  if (within !== undefined && isOverdue(job?.at, within, now)) miss('late', describeLate(job?.at, rule));
  if (!job) return missed;
  if (exit && !(job.signal === undefined && job.exitCode !== undefined && exit.includes(job.exitCode)))
    miss('exit', `it ended with ${describeExit(job) ?? 'an error'} instead of ${exit.join(' or ')}`);
  const seconds = longest === undefined ? undefined : await readSeconds(site, job);
  if (seconds !== undefined && seconds > (longest ?? 0))
    miss('duration', `it took ${Math.round(seconds)} s, more than ${formatSpan(longest ?? 0)}`);
  const reference = same && (await findReference(site, database, same, job));
  if (reference === 'gone') miss('output', 'the golden job is missing');
  else if (reference && (await digestOf(site, reference, rule)) !== (await digestOf(site, job, rule)))
    miss('output', `its output differs from that of ${reference.jobId}`);
  return missed;
}

async function findReference(
  site: Site,
  database: Database,
  same: NonNullable<Expectation['same']>,
  job: Job,
): Promise<Job | 'gone' | undefined> {
  const { clientId = '', command = '' } = job;
  if (same.as === 'previous') return findEarlier(database, site, job);
  if (same.as === 'date') return findNewestUpTo(database, site, { client: clientId, command }, same.date);
  const found = (await findJobs(site, same.jobId, undefined)).filter(({ jobId }) => jobId === same.jobId);
  return found.at(-1) ?? 'gone';
}

/** The digest of a job's stream; undefined without one. */
async function digestOf(site: Site, job: Job, { stream, ignore }: Expectation): Promise<string | undefined> {
  const stored = (await findJobStreams(site, job))[stream];
  return stored && (await digestStream(stored, ignore));
}

/**
 * How long the program ran according to the run record: from its start until its output was ready
 * to be sent.
 */
async function readSeconds(site: Site, job: Job): Promise<number | undefined> {
  const { env } = await findJobStreams(site, job);
  let text = '';
  for await (const piece of env?.read() ?? []) {
    text += piece.toString('latin1');
    if (text.length > MAX_HEAD_BYTES) break;
  }
  const fields = parseRecordFields(text);
  try {
    return (parseEpoch(fields.get('PutEpoch') ?? '') - parseEpoch(fields.get('RunEpoch') ?? '')) / 1_000_000;
  } catch {
    return undefined;
  }
}
