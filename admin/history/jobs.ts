// The jobs of a site: GET and PUT of the log put together by job id, client and command, with the files of the upload. Streams: what is kept
// in memory is the GETs without an answer, and the last of the jobs that ended, as a PUT may be repeated.
import { findGroup } from 'webjob-locker';
import { encodeField, isSuccess, type LogLine } from 'webjob-protocol';
import { openFreshIndex, readIndexedJobs } from '../database/fresh.ts';
import type { Database } from '../database/sqlite.ts';
import type { Job, JobState } from '../job.ts';
import type { Site } from '../site.ts';
import {
  describeEnded,
  describeLines,
  describePacked,
  describePackedStray,
  describeStray,
  type Ended,
  lastChange,
} from './describe.ts';
import { instantOf, readLogBlocks } from './log.ts';
import { compileNames, type NameFacts, readNameFacts } from './names.ts';
import { openPacked, type PackedUploads } from './packed.ts';
import { openUploads, readJobId, type Uploads } from './uploads.ts';

export interface JobFilter {
  since?: Date | undefined;
  until?: Date | undefined;
  /** Ids with `*` and `?`. */
  client?: string | undefined;
  command?: string | undefined;
  states?: readonly JobState[] | undefined;
  /** Only jobs of which this text is in the log. */
  contains?: string | undefined;
  /** Only what the log tells of: the locker is not walked for the rest. */
  logOnly?: boolean | undefined;
  /** Goes on with the jobs that end from now on, without end. */
  follow?: boolean | undefined;
  /** Called when what was there has been told. */
  onFollow?: (() => void) | undefined;
}

/** A PUT that is repeated more jobs later, or later in time, is a job of its own. */
const MAX_ENDED = 2000;
const REPEAT_SECONDS = 86_400;

/**
 * The jobs, in the order in which they ended; behind them what lies in the locker and no PUT of the log made, then the jobs that have not
 * ended (`got`). One for each job id, client and command: of several PUTs the last that went well counts, unless they are a day or 2000 jobs
 * apart. The GET of a job may be older than `since`; then the job comes without it. Throws Failure `failed`.
 */
export async function* readJobs(site: Site, filter: JobFilter = {}): AsyncGenerator<Job> {
  const index = filter.contains || filter.logOnly || filter.follow ? undefined : openFreshIndex(site);
  if (index) yield* readFromIndex(index, site, filter);
  else yield* readFromFiles(site, filter);
}

function* readFromIndex(index: Database, site: Site, filter: JobFilter): Generator<Job> {
  const isWanted = makeFilter(filter);
  try {
    for (const job of readIndexedJobs(index, site, filter.since, filter.until)) if (isWanted(job)) yield job;
  } finally {
    index.close();
  }
}

/** The same whatever an index says. */
export async function* readFromFiles(
  site: Site,
  filter: JobFilter = {},
  uploads: Uploads = openUploads(site),
): AsyncGenerator<Job> {
  const packs = openPacked(site.settings);
  const isWanted = makeFilter(filter);
  // Without an answer so far, by key.
  const gets = new Map<string, LogLine>();
  try {
    for await (const block of readEnded(site, filter, gets)) {
      if (filter.follow) uploads.forget();
      for (const ended of block) {
        const job = describeEnded(site, uploads, ended);
        const packed = job.group || job.state !== 'done' ? undefined : packs.find(job);
        const described = packed ? await describePacked(job, packed) : job;
        if (isWanted(described)) yield described;
      }
    }
    if (!filter.logOnly)
      for await (const job of describeStrays(site, uploads, packs, gets, filter)) if (isWanted(job)) yield job;
    for (const get of gets.values()) {
      const job = describeLines(site, get, undefined);
      if (isWanted(job)) yield job;
    }
  } finally {
    packs.close();
  }
}

/** The jobs of the log that have ended, many at once; the GETs of those that have not are left in `gets`. */
async function* readEnded(site: Site, filter: JobFilter, gets: Map<string, LogLine>): AsyncGenerator<Iterable<Ended>> {
  const ended = new Map<string, Ended>();
  const isWanted = makeNameFilter(filter);
  for await (const lines of readLogBlocks(site, filter)) {
    const done: Ended[] = [];
    for (const line of lines) {
      if (!isWanted({ clientId: line.clientId, command: line.fileName })) continue;
      const replaced = addLine(site, line, ended, gets);
      if (replaced) done.push(replaced);
      for (const [oldest, job] of ended) {
        if (!filter.follow && ended.size <= MAX_ENDED && !isLongAgo(site, job, line)) break;
        ended.delete(oldest);
        done.push(job);
      }
    }
    yield done;
  }
  yield ended.values();
}

let anonymous = 0;

/** Returns the job of the same name that ended too long ago for this line to be a repeat of it. */
function addLine(site: Site, line: LogLine, ended: Map<string, Ended>, gets: Map<string, LogLine>): Ended | undefined {
  // What has no job id belongs to nothing else.
  const key = line.jobId === undefined ? String(anonymous++) : keyOf(line);
  if (line.method !== 'PUT') {
    if (line.method === 'GET' && isSuccess(line.status)) gets.set(key, line);
    else ended.set(key, { get: line, puts: [] });
    return undefined;
  }
  const known = ended.get(key);
  const get = gets.get(key);
  gets.delete(key);
  if (known && !isLongAgo(site, known, line)) {
    known.puts.push(line);
    return undefined;
  }
  // A job that ends later stands behind those that ended before.
  ended.delete(key);
  ended.set(key, { get, puts: [line] });
  return known;
}

function isLongAgo(site: Site, { get, puts }: Ended, now: LogLine): boolean {
  const last = puts.at(-1) ?? get;
  // Most are of the same day, which is told without making dates.
  if (!last || last.time.slice(0, 10) === now.time.slice(0, 10)) return false;
  return instantOf(now, site).getTime() - instantOf(last, site).getTime() > REPEAT_SECONDS * 1000;
}

/** What lies in the locker and in packs, and no PUT of the log made; takes the GETs that belong to it. */
async function* describeStrays(
  site: Site,
  uploads: Uploads,
  packs: PackedUploads,
  gets: Map<string, LogLine>,
  { since, contains }: JobFilter,
): AsyncGenerator<Job> {
  const locker = site.settings.incomingDirectory;
  const parseName = compileNames(site.settings.putNameFormat);
  const takeGet = (jobId: string | undefined, clientId: string | undefined, fileName: string | undefined) => {
    const key = keyOf({ jobId, clientId, fileName });
    const get = gets.get(key);
    gets.delete(key);
    return get;
  };
  for (const found of uploads.others()) {
    const at = lastChange(site, found);
    if (!at || (since && at < since)) continue;
    const group = found.has ? { ...found, has: found.has } : findGroup(locker, found.name);
    if (!group) continue;
    const jobId = readJobId(locker, group.name, group.has.has('rdy') ? 'rdy' : 'lck');
    if (contains !== undefined && !jobId?.includes(contains)) continue;
    const facts = readNameFacts(site, group, parseName);
    const get = takeGet(jobId, facts.clientId, facts.command);
    yield describeStray(uploads, { ...facts, group, at, jobId, get });
  }
  for (const packed of packs.others(since)) {
    const jobId = encodeField(packed.group.jobId);
    if (contains !== undefined && !jobId.includes(contains)) continue;
    const { clientId, command } = packed.facts;
    const facts = { jobId, clientId, command };
    yield describePackedStray(site, packed, facts, takeGet(jobId, clientId, command));
  }
}

function makeFilter(filter: JobFilter): (job: Job) => boolean {
  const { since, until, states } = filter;
  const isNamed = makeNameFilter(filter);
  return (job) =>
    (!since || job.at >= since) &&
    (!until || job.at <= until) &&
    (!states || states.includes(job.state)) &&
    isNamed(job);
}

function makeNameFilter({ client, command }: JobFilter): (facts: NameFacts) => boolean {
  const clients = client === undefined ? undefined : compileGlob(client);
  const commands = command === undefined ? undefined : compileGlob(command);
  return ({ clientId, command: name }) =>
    (!clients || clients.test(clientId ?? '-')) && (!commands || commands.test(name ?? '-'));
}

/** `*` is any text and `?` any character. */
export function compileGlob(glob: string): RegExp {
  const source = glob.replace(/[^A-Za-z0-9_]/g, (c) => (c === '*' ? '.*' : c === '?' ? '.' : `\\${c}`));
  return new RegExp(`^${source}$`);
}

/** The name that tells a job from all others. */
function keyOf({ jobId, clientId, fileName }: Pick<LogLine, 'jobId' | 'clientId' | 'fileName'>): string {
  // None of them holds a blank.
  return `${jobId ?? ''} ${clientId ?? ''} ${fileName ?? ''}`;
}
