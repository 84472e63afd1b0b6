// THE join: which requests and uploads are one job, and the state of that job. It is a pure
// function: the same lines and uploads give the same jobs in whatever order they were read.
// Requests and uploads with one job id are joined together; requests without one by client, command
// and time.
import { type Extension, type Group, splitNumbered } from 'webjob-locker';
import { isSuccess, type LogLine, NOT_APPLICABLE } from 'webjob-protocol';
import type { Ending } from './ending.ts';
import type { Job, JobState } from './job.ts';
import type { Guess } from './names.ts';

/** A line of a log with its origin. */
export interface Located {
  line: LogLine;
  /** The text of the line without its end. */
  text: string;
  /** When the line was written, in milliseconds. */
  at: number;
  /** The number of the log file. */
  log: number;
}

/** The place of an upload in the locker. Other places are names of archives, and takenPlace(). */
export const LOCKER = '';
const TAKEN = '-';

/**
 * The place of an upload that was removed, archived or replaced by another; no archive has this
 * name.
 */
export function takenPlace(jobId: string | undefined): string {
  return `${TAKEN}${jobId ?? ''}`;
}

function isTaken({ place }: Pick<Upload, 'place'>): boolean {
  return place.startsWith(TAKEN);
}

/** An upload, or the files that a broken-off upload left. */
export interface Upload {
  name: string;
  place: string;
  has: ReadonlySet<Extension>;
  /** When the upload was announced or, if it was not, when it last changed, in milliseconds. */
  at: number;
  /** The job id in the escaped form of the log; undefined when it is unknown. */
  jobId: string | undefined;
  clientId: string | undefined;
  command: string | undefined;
  /**
   * Whether the client and command come from the name that the server gave the upload, and not only
   * from the run record.
   */
  isNamed: boolean;
  ending: Ending | undefined;
}

/** A job with the log lines and uploads from which it was joined. */
export interface Joined {
  job: Job;
  lines: readonly Located[];
  uploads: readonly Upload[];
}

/** A PUT that is repeated after a success counts as a new job if it is this much later. */
const REPEAT_MS = 86_400_000;
/** Statuses 456, 500 and 551 may leave a part of the upload under its name. */
const BREAKS_OFF: ReadonlySet<number> = new Set([456, 500, 551]);

/** Whether a PUT may have left files without a .rdy. */
export function breaksOff({ method, status }: LogLine): boolean {
  return method === 'PUT' && BREAKS_OFF.has(status);
}

/**
 * The length of a period for requests without a job id. A unit is what must be joined together:
 * everything with one job id or, without one, with the same client and command in one period.
 */
const NAMELESS_SECONDS = 3600;
/** Shifts the periods so that none begins at a full or half hour, when cron starts jobs. */
const NAMELESS_OFFSET = 1043;

/** The unit of a line. */
export function unitOfLine({ line: { jobId, clientId, fileName }, at }: Located): string {
  return jobId === undefined ? namelessUnit(clientId, fileName, at) : jobId;
}

/** The unit of an upload. An upload whose job id is unknown has a unit of its own. */
export function unitOfUpload({ name, jobId, clientId, command, at }: Upload): string {
  if (jobId === NOT_APPLICABLE) return namelessUnit(clientId, command, at);
  return jobId ?? `${ALONE}${name}`;
}

/**
 * The beginning of the unit of an upload without a known job id; no job id in a log begins with it.
 */
const ALONE = ' ';

function namelessUnit(clientId = '', command = '', at: number): string {
  const part = Math.floor((at / 1000 + NAMELESS_OFFSET) / NAMELESS_SECONDS);
  return `${ALONE}${ALONE}${clientId} ${command} ${part}`;
}

/** Joins the jobs of one unit. `guess` returns the names that a broken-off PUT may have left. */
export function joinUnit(lines: readonly Located[], uploads: readonly Upload[], guess: GuessNames): Joined[] {
  const episodes = lines.length === 1 ? [newEpisode(lines)] : separate(lines.toSorted(compareLines), uploads);
  const left: Upload[] = [];
  for (const upload of uploads.length < 2
    ? uploads
    : uploads.toSorted((a, b) => a.at - b.at || (a.name < b.name ? -1 : 1))) {
    const episode = upload.has.has('rdy') ? findEpisode(episodes, upload) : findBroken(episodes, upload, guess);
    if (episode) episode.uploads.push(upload);
    else left.push(upload);
  }
  if (left.length > 0) episodes.push(...gatherUnmatched(left));
  return episodes.map(({ lines, uploads }) => joinEpisode(lines, uploads));
}

export type GuessNames = (put: LogLine) => Iterable<Guess>;

/** Splits lines into runs. */
function separate(lines: readonly Located[], uploads: readonly Upload[]): Episode[] {
  if (lines.some(({ line }) => line.jobId === undefined)) return lines.map((one) => newEpisode([one]));
  return clusterLines(lines, uploads).flatMap(splitCluster);
}

interface Episode {
  lines: readonly Located[];
  uploads: Upload[];
  clientId: string | undefined;
  command: string | undefined;
}

/**
 * Sorts lines by time, a GET before a PUT of the same second, and otherwise so that the order does
 * not depend on which log was read first.
 */
function compareLines(a: Located, b: Located): number {
  const byMethod = Number(a.line.method === 'PUT') - Number(b.line.method === 'PUT');
  return a.at - b.at || byMethod || (a.text < b.text ? -1 : Number(a.text > b.text));
}

function newEpisode(lines: readonly Located[]): Episode {
  const put = lines.findLast(({ line }) => line.method === 'PUT') ?? lines.at(-1);
  return { lines, uploads: [], clientId: put?.line.clientId, command: put?.line.fileName };
}

/**
 * Groups the lines of one job id by client and command. A client with GetHookSuffix requests
 * `host.sh.gpg` and uploads `host.sh`, so a GET belongs to the PUT or upload whose name it has plus
 * a suffix.
 */
function clusterLines(lines: readonly Located[], uploads: readonly Upload[]): (readonly Located[])[] {
  const [first] = lines;
  if (!first) return [];
  const { clientId, fileName } = first.line;
  const isOne = ({ line }: Located): boolean => line.clientId === clientId && line.fileName === fileName;
  // A single GET may belong to an upload with another name.
  if ((first.line.method === 'PUT' || lines.length > 1 || uploads.length === 0) && lines.every(isOne)) return [lines];
  const puts = new Set<string>();
  for (const { line } of lines) if (line.method === 'PUT') puts.add(`${line.clientId} ${line.fileName}`);
  for (const { isNamed, clientId, command } of uploads) if (isNamed) puts.add(`${clientId} ${command}`);
  const clusters = new Map<string, Located[]>();
  for (const located of lines) {
    const { method, clientId, fileName = '' } = located.line;
    let key = `${clientId} ${fileName}`;
    if (method === 'GET' && !puts.has(key))
      for (let dot = fileName.lastIndexOf('.'); dot > 0; dot = fileName.lastIndexOf('.', dot - 1)) {
        const shorter = `${clientId} ${fileName.slice(0, dot)}`;
        if (!puts.has(shorter)) continue;
        key = shorter;
        break;
      }
    const same = clusters.get(key);
    if (same) same.push(located);
    else clusters.set(key, [located]);
  }
  return [...clusters.values()];
}

/**
 * Splits the lines of one job id after a successful job: lines more than a day later are another
 * job.
 */
function splitCluster(lines: readonly Located[]): Episode[] {
  const [first, last] = [lines[0], lines.at(-1)];
  if (first && last && last.at - first.at <= REPEAT_MS) return [newEpisode(lines)];
  const parts: Located[][] = [];
  let hasEnded = false;
  for (const one of lines) {
    const last = parts.at(-1);
    const previous = last?.at(-1);
    if (!last || !previous || (hasEnded && one.at - previous.at > REPEAT_MS)) {
      parts.push([one]);
      hasEnded = false;
    } else last.push(one);
    if (one.line.method === 'PUT' && isSuccess(one.line.status)) hasEnded = true;
  }
  return parts.map(newEpisode);
}

const isAccepted = ({ line }: Located): boolean => line.method === 'PUT' && line.status === 200;

/**
 * Finds the run of a complete upload. The name of the upload decides; without it, the job id, and
 * among several clients the claims of the run record.
 */
function findEpisode(episodes: readonly Episode[], upload: Upload): Episode | undefined {
  const isSame = ({ clientId, command }: Episode): boolean =>
    clientId === upload.clientId && command === upload.command;
  if (upload.jobId === NOT_APPLICABLE) return findBySecond(episodes.filter(isSame), upload);
  const same = episodes.filter(isSame);
  if (same.length > 0 || upload.isNamed) return nearest(same, upload);
  const accepted = episodes.filter(({ lines }) => lines.some(isAccepted));
  const keys = new Set(accepted.map(({ clientId, command }) => `${clientId} ${command}`));
  return keys.size === 1 ? nearest(accepted, upload) : undefined;
}

/**
 * Of several runs with one id, returns the one whose accepted PUT is closest in time to the upload.
 */
function nearest(episodes: readonly Episode[], { at }: Upload): Episode | undefined {
  const distance = ({ lines }: Episode): number => {
    const accepted = lines.filter(isAccepted);
    return Math.min(...(accepted.length > 0 ? accepted : lines).map((one) => Math.abs(one.at - at)));
  };
  const [first, ...others] = episodes;
  return first && others.reduce((a, b) => (distance(b) < distance(a) ? b : a), first);
}

/**
 * Finds the run by time. The log has only whole seconds, for the end of a request and its duration.
 */
function findBySecond(episodes: readonly Episode[], { at }: Upload): Episode | undefined {
  const second = Math.floor(at / 1000) * 1000;
  const free = episodes.filter(({ lines: [one], uploads }) => {
    if (!one || !isAccepted(one) || uploads.some(({ has }) => has.has('rdy'))) return false;
    return second <= one.at + 1000 && second >= one.at - (one.line.seconds + 1) * 1000;
  });
  const [first, ...others] = free;
  const distance = ({ lines: [one] }: Episode): number => Math.abs((one?.at ?? 0) - second);
  return first && others.reduce((a, b) => (distance(b) < distance(a) ? b : a), first);
}

/** The run whose broken-off PUT left these files, if it can be determined. */
function findBroken(episodes: readonly Episode[], upload: Upload, guess: GuessNames): Episode | undefined {
  const fits = (one: Located): boolean =>
    breaksOff(one.line) && [...guess(one.line)].some((each) => each.fits(upload.name));
  const fitting = episodes.filter(({ lines }) => lines.some(fits));
  if (fitting.length > 0) return fitting.length === 1 ? fitting[0] : nearest(fitting, upload);
  if (upload.jobId === undefined) return undefined;
  return nearest(
    episodes.filter(({ clientId, command }) => clientId === upload.clientId && command === upload.command),
    upload,
  );
}

/**
 * Uploads without a log line: one job for each client and command with a job id, and one for each
 * upload without a known job id.
 */
function gatherUnmatched(uploads: readonly Upload[]): Episode[] {
  const gathered = new Map<string, Episode>();
  for (const upload of uploads) {
    // An upload that was removed or archived, and that no log line mentions, is not a job.
    if (isTaken(upload)) continue;
    const { name, jobId, clientId, command } = upload;
    const isKnown = jobId !== undefined && jobId !== NOT_APPLICABLE && upload.has.has('rdy');
    const key = isKnown ? `${clientId} ${command}` : `${ALONE}${name}`;
    const same = gathered.get(key);
    if (same) same.uploads.push(upload);
    else gathered.set(key, { lines: [], uploads: [upload], clientId, command });
  }
  return [...gathered.values()];
}

/** One shared empty list: a new one for each of millions of jobs would take most of the memory. */
const NONE: readonly never[] = [];

/** Joins the lines and uploads of one run. */
export function joinEpisode(lines: readonly Located[], uploads: readonly Upload[]): Joined {
  const { put, get, seen } = pickLines(lines);
  const complete = uploads.length === 0 ? NONE : uploads.filter(({ has }) => has.has('rdy'));
  const stored = complete.length === 0 ? NONE : complete.filter(({ place }) => place === LOCKER);
  const broken = complete.length === uploads.length ? NONE : uploads.filter(({ has }) => !has.has('rdy'));
  const packed = complete.findLast((upload) => upload.place !== LOCKER && !isTaken(upload));
  const upload = stored.at(-1) ?? packed;
  const left = upload || (put && isSuccess(put.line.status)) ? undefined : broken.at(-1);
  const known = upload ?? left ?? complete.at(-1);
  const last = put ?? get;
  const group = stored.at(-1) ?? left;
  const job: Job = {
    jobId: last ? last.line.jobId : known?.jobId,
    clientId: last ? last.line.clientId : known?.clientId,
    command: last ? last.line.fileName : known?.command,
    state: stateOf({ put, get, upload, left, complete }),
    at: new Date(put?.at ?? known?.at ?? get?.at ?? 0),
    get: get?.line,
    put: put?.line,
    attempts: lines.length === Number(!!get) + Number(!!put) ? NONE : attemptsOf(lines, get, put),
    group: group && groupOf(group),
    uploads: stored.length === 0 ? NONE : stored.map(groupOf),
    differing: complete.length === 0 ? NONE : namesOfDiffering(complete),
    left: broken.length === 0 ? NONE : broken.map(({ name }) => name),
    packed: packed && stored.length === 0 ? { pack: packed.place, name: packed.name } : undefined,
    exitCode: upload?.ending?.exitCode,
    signal: upload?.ending?.signal,
    outerId: upload?.ending?.outerId,
    clockSkew: upload?.ending?.clockSkew,
    seenAt: seen === undefined ? undefined : new Date(seen),
  };
  return { job, lines, uploads };
}

interface Picked {
  put: Located | undefined;
  get: Located | undefined;
  /** When the server last answered a request with success. */
  seen: number | undefined;
}

/**
 * Picks the PUT and the GET that count: of each, the last that succeeded or, if none did, the last.
 */
function pickLines(lines: readonly Located[]): Picked {
  const picked: Picked = { put: undefined, get: undefined, seen: undefined };
  for (const one of lines) {
    const kind = one.line.method === 'PUT' ? 'put' : 'get';
    const isGood = isSuccess(one.line.status);
    const best = picked[kind];
    if (isGood || !best || !isSuccess(best.line.status)) picked[kind] = one;
    if (isGood) picked.seen = Math.max(picked.seen ?? one.at, one.at);
  }
  return picked;
}

function attemptsOf(lines: readonly Located[], get: Located | undefined, put: Located | undefined): LogLine[] {
  return lines.filter((one) => one !== get && one !== put).map(({ line }) => line);
}

/**
 * The names of differing uploads, each once: while an upload is being archived, it is in the locker
 * and in an archive.
 */
function namesOfDiffering(complete: readonly Upload[]): string[] {
  const there = complete.filter((upload) => splitNumbered(upload.name) && !isTaken(upload));
  return there.length === 0 ? [] : [...new Set(there.map(({ name }) => name))];
}

interface Parts {
  put: Located | undefined;
  get: Located | undefined;
  /** The complete upload that counts. */
  upload: Upload | undefined;
  /** The incomplete upload that counts when there is no complete one. */
  left: Upload | undefined;
  complete: readonly Upload[];
}

function stateOf({ put, get, upload, left, complete }: Parts): JobState {
  if (upload && !put && !get) return 'orphan';
  if (upload && !(get && !put && !isSuccess(get.line.status))) return upload.ending?.isGood ? 'done' : 'failed';
  if (left) return 'incomplete';
  if (put?.line.status === 200) {
    // Without a job id it is unknown which of the removed uploads belonged to this job.
    return complete.length > 0 || put.line.jobId === undefined ? 'done' : 'missing';
  }
  if (put) return isSuccess(put.line.status) ? 'done' : 'refused';
  if (!get || !isSuccess(get.line.status)) return 'refused';
  return complete.length > 0 ? 'done' : 'got';
}

function groupOf({ name, has }: Upload): Group {
  return { name, has };
}
