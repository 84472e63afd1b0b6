// A site like a busy one after a month: logs, a custody record, archives and a locker of any size,
// in the exact formats, and always the same for the same seed and time. Written directly, because
// the server would take hours. For the benchmarks; run alone, it makes one and leaves it in place.
import { execFileSync } from 'node:child_process';
import { hash } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  futimesSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  appendCustody,
  type CustodyFacts,
  custodyPath,
  formatCustody,
  formatReady,
  listCustodyFiles,
  MAX_RECORD_BYTES,
} from 'webjob-locker';
import {
  formatEpoch,
  formatJobId,
  formatLogLine,
  formatRecord,
  formatTime,
  type NewLogLine,
  RECORD_FIELDS,
} from 'webjob-protocol';
import { BATCH, formatGenesis, WRITER } from '../evidence/events.ts';
import { parseCount } from './options.ts';

const HELP = `Usage: node bench/locker.ts [--uploads N] [--lines M] [--clients C] [--seed S] [--end TIME] [--segment SIZE] DIRECTORY

Makes a site in a new directory: etc/nph-webjob.cfg, logs of M lines (default 20000), custody records, and the files of
N uploads (default 1000). Prune has removed older uploads, two days of them are in archives, two clients are on hold. One
upload contains the word ${'`'}needle_in_a_locker${'`'}. From 200,000 uploads on, PutNameFormat contains directories.

  --clients C  number of clients (default: a tenth of the uploads, at least 50)
  --end TIME   when the last job ended (default 2026-11-01T00:00:00Z); the first ended thirty days before
  --segment SIZE  CustodySegmentLimit in bytes, from which a custody record continues in another file (default 67108864)
Archives need dist/.
`;

export interface LockerPlan {
  folder: string;
  uploads: number;
  lines: number;
  clients: number;
  seed: number;
  /** Milliseconds. */
  end: number;
  /** CustodySegmentLimit; undefined for its default. */
  segment?: number | undefined;
}

/** A word in the output of one upload. */
export const NEEDLE = 'needle_in_a_locker';
/** The default time at which the last job ended. */
const END = Date.UTC(2026, 10, 1);
const SPAN_MS = 30 * 86_400_000;
/** With this many uploads no locker has all of them in one directory (docs/scale.md). */
const MANY_UPLOADS = 200_000;
const SERVER = 'server_1';
/** The default of CustodySegmentLimit. */
const SEGMENT_BYTES = 64 * 1024 * 1024;
const WEBJOBCTL = join(import.meta.dirname, '..', 'dist', 'webjobctl');
const COMMANDS = ['host.sh', 'ps.sh', 'df.sh', 'netstat.sh', 'rpm-verify.sh', 'last.sh', 'md5-tree.sh'];
/** The number of logs after rotations. */
const LOGS = 3;
/** The most uploads in archives. */
const MAX_PACKED = 200;

/** The kinds of jobs, in jobs out of a thousand; the rest succeeds. */
const KINDS = [
  ['absent', 500], // the program that the client asks for does not exist
  ['foreign', 4], // another client asks in the client's name
  ['got', 8], // there is no upload
  ['refused', 6], // the upload is too large
  ['retried', 14], // the first PUT breaks off, the second is accepted
  ['broken', 3], // the only PUT breaks off, and what arrived stays
] as const;
type Kind = (typeof KINDS)[number][0] | 'delivered';

interface MadeJob {
  kind: Kind;
  lines: string[];
  /** The path below incoming/. */
  name: string;
  jobId: string;
  clientId: string;
  command: string;
  exitCode: number;
  signal: number;
  outerId: string | undefined;
  endedAt: Date;
  /** Differs between jobs. */
  fact: number;
}

type Streams = Record<'out' | 'err' | 'env', string>;

/** Makes the site; returns the path of its nph-webjob.cfg. */
export function makeLocker(plan: LockerPlan): string {
  const { folder, uploads, lines, seed, end } = plan;
  mkdirSync(folder);
  for (const name of ['etc', 'incoming', 'logfiles', 'profiles', 'packed']) mkdirSync(join(folder, name));
  const isFlat = uploads < MANY_UPLOADS;
  const format = isFlat ? '%cid_%Y%m%d%H%M%S_%pid_%cmd' : '%Y%m%d/%H/%cid_%M%S_%pid_%cmd';
  const config = join(folder, 'etc', 'nph-webjob.cfg');
  const limit = plan.segment === undefined ? '' : `CustodySegmentLimit=${plan.segment}\n`;
  writeFileSync(config, `BaseDirectory=${folder}\nServerId=${SERVER}\nUseGMT=Y\nPutNameFormat=${format}\n${limit}`);
  const makers = { random: makeRandom(seed), nameOf: isFlat ? flatName : deepName, clients: plan.clients };
  const site = new SiteWriter(folder, end, plan.segment);
  // The newest uploads are kept.
  const accepted = countStored(seed, lines);
  const packed = Math.min(MAX_PACKED, Math.floor(uploads / 20));
  const prunedBefore = accepted - uploads - packed;
  let stored = 0;
  for (const job of makeJobs(makers, lines, end)) {
    site.log(job.lines);
    if (job.kind === 'broken' && stored > accepted - uploads) site.writeBroken(job);
    if (!isStored(job)) continue;
    stored++;
    if (stored <= prunedBefore) site.prune(job);
    else site.store(job, stored === accepted - Math.floor(uploads / 2));
    if (stored === prunedBefore + packed && packed > 0) site.pack(config);
  }
  site.end();
  for (const client of [1, 2]) hold(config, `client${client}`);
  return config;
}

const isStored = ({ kind }: Pick<MadeJob, 'kind'>): boolean => kind === 'delivered' || kind === 'retried';

/** The number of uploads for a seed: each job has a random number of lines. */
function countStored(seed: number, lines: number): number {
  const random = makeRandom(seed);
  let stored = 0;
  for (let count = 0; count < lines; ) {
    const kind = pickKind(random());
    for (let other = 1; other < NUMBERS; other++) random();
    count += LINES[kind];
    if (isStored({ kind })) stored++;
  }
  return stored;
}

/** Log lines of each kind of job. */
const LINES: Readonly<Record<Kind, number>> = {
  absent: 1,
  foreign: 1,
  got: 1,
  refused: 2,
  retried: 3,
  broken: 2,
  delivered: 2,
};
/** Random numbers for each job. */
const NUMBERS = 5;

interface Makers {
  random: () => number;
  nameOf: (job: Pick<MadeJob, 'clientId' | 'command' | 'endedAt'>, pid: number) => string;
  clients: number;
}

/**
 * Yields jobs in order of time, until there are enough lines; the interval is that of an average
 * job.
 */
function* makeJobs(makers: Makers, lines: number, end: number): Generator<MadeJob> {
  let count = 0;
  for (let index = 0; count < lines; index++) {
    const at = end - SPAN_MS + Math.floor((count / lines) * SPAN_MS);
    const job = makeJob(makers, index, at);
    job.lines.length = Math.min(job.lines.length, lines - count);
    count += job.lines.length;
    yield job;
  }
}

function makeJob({ random, nameOf, clients }: Makers, index: number, ended: number): MadeJob {
  const kind = pickKind(random());
  const clientId = `client${Math.floor(random() * clients)}`;
  const command = COMMANDS[Math.floor(random() * COMMANDS.length)] ?? '';
  const pid = 1000 + (index % 30_000);
  const [gotAt, endedAt] = [new Date(ended - 2000), new Date(ended)];
  const idOf = (at: number, sequence: number): string =>
    formatJobId({ serverId: SERVER, epochSeconds: Math.floor(at / 1000), sequence });
  const jobId = idOf(gotAt.getTime(), pid);
  const chance = random();
  const [exitCode, signal] = chance < 0.02 ? [1, 0] : chance < 0.023 ? [0, 15] : [0, 0];
  const outerId = chance > 0.997 ? idOf(gotAt.getTime() - 60_000, 1 + (pid % 999)) : undefined;
  return {
    kind,
    jobId,
    clientId,
    command,
    endedAt,
    exitCode,
    signal,
    outerId,
    lines: formatLines(kind, { jobId, clientId, command, gotAt, endedAt }),
    name: nameOf({ clientId, command, endedAt }, pid + 1),
    fact: Math.floor(random() * 1e9),
  };
}

function pickKind(chance: number): Kind {
  let rest = chance * 1000;
  for (const [kind, share] of KINDS) {
    if (rest < share) return kind;
    rest -= share;
  }
  return 'delivered';
}

type Named = Pick<MadeJob, 'jobId' | 'clientId' | 'command' | 'endedAt'> & { gotAt: Date };

function formatLines(kind: Kind, { jobId, clientId, command, gotAt, endedAt }: Named): string[] {
  const facts = {
    jobId,
    remoteUser: clientId,
    remoteAddress: '192.168.1.120',
    clientId,
    fileName: command,
    seconds: 0,
  };
  const line = (at: Date, method: string, status: number, message: string, rest: Partial<NewLogLine> = {}): string => {
    const [bytesReceived, bytesSent] = method === 'PUT' ? [900, 0] : [0, status === 200 ? 190 : 0];
    return formatLogLine({
      ...facts,
      time: timeText(at),
      method,
      bytesReceived,
      bytesSent,
      status,
      message,
      ...rest,
    });
  };
  const unknown = { jobId: undefined, remoteUser: 'client0' };
  if (kind === 'absent') return [line(endedAt, 'GET', 404, 'Not Found', { jobId: undefined })];
  if (kind === 'foreign') return [line(endedAt, 'GET', 453, 'Username-ClientId Mismatch', unknown)];
  const get = line(gotAt, 'GET', 200, 'Success');
  const put = line(endedAt, 'PUT', 200, 'Success');
  if (kind === 'got') return [get];
  if (kind === 'refused') return [get, line(endedAt, 'PUT', 455, 'Content-Length Exceeds Limit')];
  const cut = line(endedAt, 'PUT', 456, 'Content-Length Mismatch');
  if (kind === 'broken') return [get, cut];
  return kind === 'retried' ? [get, cut, put] : [get, put];
}

const pidText = (pid: number): string => String(pid).padStart(5, '0');
const stampOf = (at: Date): string => timeText(at).replace(/\D/g, '');

/** Jobs of the same second are adjacent. */
const times = new Map<number, string>();

function timeText(at: Date): string {
  const second = Math.floor(at.getTime() / 1000);
  const text = times.get(second) ?? formatTime(at, true);
  if (times.size > 100) times.clear();
  times.set(second, text);
  return text;
}

const flatName: Makers['nameOf'] = ({ clientId, command, endedAt }, pid) =>
  `${clientId}_${stampOf(endedAt)}_${pidText(pid)}_${command}`;

const deepName: Makers['nameOf'] = ({ clientId, command, endedAt }, pid) => {
  const stamp = stampOf(endedAt);
  return `${stamp.slice(0, 8)}/${stamp.slice(8, 10)}/${clientId}_${stamp.slice(10)}_${pidText(pid)}_${command}`;
};

/** Run records differ only in a few fields: each kind is made once, with placeholders. */
const records = new Map<string, string[]>();
const MARKS = /@(?:client|jid|job|run|put|outer)@/;

function recordParts({ command, exitCode, signal, outerId }: MadeJob): string[] {
  const kind = [command, exitCode, signal, outerId !== undefined].join(' ');
  const made = records.get(kind);
  if (made) return made;
  const known: Record<string, string> = {
    Version: 'webjob 0.1.0 ssl 64 bit',
    Hostname: '@client@',
    SystemOS: 'x86_64 Linux 6.1',
    ClientId: '@client@',
    GetRequest: command,
    Command: command,
    CommandLine: command,
    Jid: '@jid@',
    KidStatus: String(exitCode),
    KidSignal: String(signal),
    KidReason: 'The kid exited cleanly.',
    JobEpoch: '@job@',
    GetEpoch: '@job@',
    RunEpoch: '@run@',
    PutEpoch: '@put@',
  };
  const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, known[name] ?? 'NA']));
  const extra: [string, string][] = outerId === undefined ? [] : [['OuterJid', '@outer@']];
  const parts = formatRecord({ fields: fields as Parameters<typeof formatRecord>[0]['fields'], extra });
  const split = parts.split(new RegExp(`(${MARKS.source})`));
  records.set(kind, split);
  return split;
}

function makeStreams(job: MadeJob, hasNeedle: boolean): Streams {
  const at = (milliseconds: number): string => formatEpoch((job.endedAt.getTime() - milliseconds) * 1000, 'UTC');
  const values: Record<string, string> = {
    '@client@': job.clientId,
    '@jid@': job.jobId,
    '@outer@': job.outerId ?? '',
    '@job@': at(2000),
    '@run@': at(1000),
    '@put@': at(0),
  };
  const env = recordParts(job)
    .map((part, index) => (index % 2 === 0 ? part : (values[part] ?? '')))
    .join('');
  let out = '';
  for (let line = 0; line < 6; line++) out += `line ${line} of ${job.clientId}: ${job.fact + line}\n`;
  const err = job.exitCode === 0 ? '' : `${job.command}: it failed\n`;
  return { out: hasNeedle ? `${out}${NEEDLE}\n` : out, err, env };
}

/** A cache of digests of repeated texts. */
const EMPTY_SHA256 = hash('sha256', '');
const sha256 = (text: string): string => (text === '' ? EMPTY_SHA256 : hash('sha256', text));

/** Writes the files of a site as its servers and webjobctl would. */
class SiteWriter {
  readonly #folder: string;
  readonly #end: number;
  readonly #deposits: Chained;
  /** The record that prune writes. */
  #pruned: { name: string; jobId: string; files: Record<string, { bytes: number; sha256: string }> }[] = [];
  #prunedAt = 0;
  readonly #keeper: Chained;
  readonly #folders = new Set<string>();
  #text = '';
  #log: number;
  #rotations = 0;
  #nextRotation: number;

  constructor(folder: string, end: number, segment = SEGMENT_BYTES, isThere = false) {
    this.#folder = folder;
    this.#end = end;
    this.#nextRotation = end - SPAN_MS + SPAN_MS / LOGS;
    const logs = join(folder, 'logfiles');
    this.#log = openSync(join(logs, 'nph-webjob.log'), isThere ? 'a' : 'w');
    this.#deposits = new Chained(logs, SERVER, segment, isThere);
    this.#keeper = new Chained(logs, WRITER, segment, isThere);
  }

  log(lines: readonly string[]): void {
    if (lines.length > 0) this.#text += `${lines.join('\n')}\n`;
    if (this.#text.length < 1_000_000) return;
    this.#writeLog();
    const time = Date.parse(`${lines.at(-1)?.slice(0, 19).replace(' ', 'T')}Z`);
    if (time < this.#nextRotation || time >= this.#end - SPAN_MS / LOGS / 2) return;
    this.#nextRotation += SPAN_MS / LOGS;
    this.#rotate();
  }

  #writeLog(): void {
    writeAll(this.#log, this.#text);
    this.#text = '';
  }

  /** Like logrotate with compress and delaycompress. */
  #rotate(): void {
    const path = join(this.#folder, 'logfiles', 'nph-webjob.log');
    closeSync(this.#log);
    for (let number = this.#rotations; number > 0; number--) {
      const ending = number > 1 ? '.gz' : '';
      renameSync(`${path}.${number}${ending}`, `${path}.${number + 1}${ending}`);
      if (number > 1) continue;
      execFileSync('gzip', [`${path}.2`]);
    }
    renameSync(path, `${path}.1`);
    this.#rotations++;
    this.#log = openSync(path, 'w');
  }

  /** An upload that was stored and later removed by prune. */
  prune(job: MadeJob): void {
    const streams = makeStreams(job, false);
    this.#deposit(job, streams);
    const texts = { ...streams, rdy: formatReady(job.jobId) };
    const files = Object.entries(texts).map(([extension, text]) => [
      extension,
      { bytes: text.length, sha256: sha256(text) },
    ]);
    this.#pruned.push({ name: job.name, jobId: job.jobId, files: Object.fromEntries(files) });
    this.#prunedAt = job.endedAt.getTime() + 60_000;
    if (this.#pruned.length === BATCH) this.#recordPruned();
  }

  #recordPruned(): void {
    const groups = this.#pruned;
    this.#pruned = [];
    if (groups.length === 0) return;
    const time = new Date(this.#prunedAt).toISOString();
    const names = groups.map(({ name }) => name);
    this.#keeper.append({ time, by: 'root', event: 'prune', rule: '--older-than 20d', names, groups });
  }

  store(job: MadeJob, hasNeedle: boolean): void {
    const streams = makeStreams(job, hasNeedle);
    this.#deposit(job, streams);
    const base = this.#makeFolder(job);
    for (const stream of ['out', 'err', 'env'] as const) writeFile(`${base}.${stream}`, streams[stream], job.endedAt);
    writeFile(`${base}.rdy`, formatReady(job.jobId), job.endedAt);
  }

  /** Files that a broken-off PUT left. */
  writeBroken(job: MadeJob): void {
    const { out } = makeStreams(job, false);
    writeFile(`${this.#makeFolder(job)}.out`, out.slice(0, 40), job.endedAt);
  }

  #makeFolder({ name }: MadeJob): string {
    const base = join(this.#folder, 'incoming', name);
    const folder = base.slice(0, base.lastIndexOf('/'));
    if (this.#folders.size !== this.#folders.add(folder).size) mkdirSync(folder, { recursive: true });
    return base;
  }

  #deposit({ name, jobId, clientId, command, endedAt }: MadeJob, streams: Streams): void {
    const each = <Value>(find: (text: string) => Value): Record<string, Value> =>
      Object.fromEntries((['out', 'err', 'env'] as const).map((stream) => [stream, find(streams[stream])]));
    this.#deposits.append({
      time: endedAt.toISOString(),
      event: 'deposit',
      pid: 2193,
      name,
      serverId: SERVER,
      jobId,
      clientId,
      fileName: command,
      remoteUser: clientId,
      remoteAddress: '192.168.1.120',
      receivedAt: endedAt.toISOString(),
      bytes: each((text) => text.length),
      sha256: each(sha256),
    });
  }

  /** Archives all uploads, with webjobctl itself. */
  pack(config: string): void {
    this.#recordPruned();
    this.#writeLog();
    this.#keeper.flush();
    this.#deposits.flush();
    execFileSync(process.execPath, [WEBJOBCTL, '--config', config, 'pack', '--older-than', '1d'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    this.#keeper.goOn();
  }

  end(): void {
    this.#recordPruned();
    this.#writeLog();
    closeSync(this.#log);
    this.#deposits.end();
    this.#keeper.end();
  }
}

/** A custody record with one writer: each record covers the one before it. */
class Chained {
  readonly #logs: string;
  readonly #serverId: string;
  readonly #segment: number;
  #fd: number;
  #size = 0;
  #last = '';
  #text = '';

  constructor(logs: string, serverId: string, segment: number, isThere: boolean) {
    this.#logs = logs;
    this.#serverId = serverId;
    this.#segment = segment;
    if (isThere) {
      this.#fd = this.#open();
      return;
    }
    this.#fd = openSync(custodyPath(logs, serverId), 'w');
    this.#last = formatGenesis(serverId);
    this.#text = this.#last;
    this.#size = this.#last.length;
  }

  append(facts: CustodyFacts): void {
    const line = `${formatCustody([this.#size - this.#last.length, this.#size], sha256(this.#last), facts)}\n`;
    if (this.#size + line.length >= this.#segment) {
      // webjobctl itself makes the end of a segment and the beginning of the next.
      this.flush();
      appendCustody(custodyPath(this.#logs, this.#serverId), facts, { mayCreate: true, segmentLimit: this.#segment });
      this.goOn();
      return;
    }
    this.#last = line;
    this.#size += line.length;
    this.#text += line;
    if (this.#text.length > 1_000_000) this.flush();
  }

  flush(): void {
    writeAll(this.#fd, this.#text);
    this.#text = '';
  }

  /** Continues after what other processes have appended meanwhile. */
  goOn(): void {
    closeSync(this.#fd);
    this.#fd = this.#open();
  }

  /** Opens the newest segment for appending, and reads its last line. */
  #open(): number {
    const newest = listCustodyFiles(this.#logs).findLast(({ serverId }) => serverId === this.#serverId);
    const fd = openSync(join(this.#logs, newest?.file ?? ''), 'a+');
    this.#size = fstatSync(fd).size;
    const tail = Buffer.alloc(Math.min(MAX_RECORD_BYTES, this.#size));
    readSync(fd, tail, 0, tail.length, this.#size - tail.length);
    const text = tail.toString('latin1');
    this.#last = text.slice(text.lastIndexOf('\n', text.length - 2) + 1);
    return fd;
  }

  end(): void {
    this.flush();
    closeSync(this.#fd);
  }
}

function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text, 'latin1');
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
}

function writeFile(path: string, text: string, at: Date): void {
  const fd = openSync(path, 'w');
  if (text !== '') writeSync(fd, text);
  futimesSync(fd, at, at);
  closeSync(fd);
}

function hold(config: string, clientId: string): void {
  const args = ['hold', 'add', '--client', clientId, '--reason', 'case 7'];
  execFileSync(process.execPath, [WEBJOBCTL, '--config', config, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/**
 * Random numbers from 0 to 1, the same for the same seed: a linear congruential generator
 * (Numerical Recipes, section 7.1).
 */
function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/**
 * Adds jobs that have just ended to a site made by makeLocker(): log, custody record and files.
 * Returns the job id of the last.
 */
export function addJobs(folder: string, count: number): string {
  const config = readFileSync(join(folder, 'etc', 'nph-webjob.cfg'), 'utf8');
  const isFlat = !config.includes('%H/');
  const [, segment = SEGMENT_BYTES] = /^CustodySegmentLimit=(\d+)$/m.exec(config) ?? [];
  const nameOf = isFlat ? flatName : deepName;
  const random = makeRandom(Date.now());
  const site = new SiteWriter(folder, Date.now(), Number(segment), true);
  let last = '';
  const first = Math.floor(random() * 1e9);
  for (let [left, index] = [count, first]; left > 0; index++) {
    // Job ids of one second differ by a number that repeats after 30,000.
    const job = makeJob({ random, nameOf, clients: 50 }, index, Date.now());
    if (!isStored(job)) continue;
    site.store(job, false);
    site.log(job.lines);
    last = job.jobId;
    left--;
  }
  site.end();
  return last;
}

/**
 * Adds custody records without uploads to such a site: commands that only read the record see no
 * difference.
 */
export function addRecords(folder: string, count: number): void {
  const record = new Chained(join(folder, 'logfiles'), SERVER, SEGMENT_BYTES, true);
  const at = Date.now() - SPAN_MS;
  for (let index = 0; index < count; index++) {
    const time = new Date(at + Math.floor((SPAN_MS / 2) * (index / count))).toISOString();
    const digest = sha256(`${index}`);
    const jobId = `${SERVER}_${String(Math.floor(Date.parse(time) / 1000))}_${String(index % 100_000).padStart(5, '0')}`;
    record.append({
      time,
      event: 'deposit',
      pid: 2193,
      name: `client_${index}`,
      serverId: SERVER,
      jobId,
      clientId: 'client1',
      fileName: 'host.sh',
      remoteUser: 'client1',
      remoteAddress: '192.168.1.120',
      receivedAt: time,
      bytes: { out: 1, err: 0, env: 602 },
      sha256: { out: digest, err: EMPTY_SHA256, env: digest },
    });
  }
  record.end();
}

/** The default number of clients for a number of uploads. */
export function clientsOf(uploads: number): number {
  return Math.max(50, Math.floor(uploads / 10));
}

if (import.meta.main) {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const options = {
    uploads: text('1000'),
    lines: text('20000'),
    seed: text('1'),
    end: text(new Date(END).toISOString()),
    clients: { type: 'string' },
    segment: { type: 'string' },
    help: { type: 'boolean', default: false },
  } as const;
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [folder, ...others] = positionals;
  if (values.help || folder === undefined || others.length > 0) process.stdout.write(HELP);
  else {
    const [uploads, lines, seed] = (['uploads', 'lines', 'seed'] as const).map((name) =>
      parseCount(name, values[name]),
    );
    const clients = values.clients === undefined ? clientsOf(uploads ?? 0) : parseCount('clients', values.clients);
    const plan = {
      folder,
      uploads: uploads ?? 0,
      lines: lines ?? 0,
      seed: seed ?? 0,
      clients,
      end: Date.parse(values.end),
      segment: values.segment === undefined ? undefined : parseCount('segment', values.segment),
    };
    process.stdout.write(`${makeLocker(plan)}\n`);
  }
}
