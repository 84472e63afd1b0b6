// Copies the uploads of a job from the locker or from archives into a package. Each stream is read
// once, and compared with the custody record and the run record while it is copied.
import { findGroup, formatReady, STREAMS, type StreamName, statGroupFile } from 'webjob-locker';
import { encodeField } from 'webjob-protocol';
import { readGroup } from '../../archive/archive.ts';
import type { PackedGroup } from '../../archive/manifest.ts';
import { packAt, readGroups } from '../../archive/packs.ts';
import { Failure } from '../../cli/failure.ts';
import type { Evidence } from '../../evidence/evidence.ts';
import type { Finding } from '../../evidence/finding.ts';
import type { Deposit } from '../../evidence/records.ts';
import { compareSigned, type JudgedResult, judgeResult } from '../../evidence/result.ts';
import { emptyReport, findClaim, judgeStream, MAX_ENV_BYTES, readRunRecord } from '../../evidence/upload.ts';
import type { Verdict } from '../../evidence/verdict.ts';
import { describeMissing } from '../../evidence/verify.ts';
import type { Job } from '../../ledger/job.ts';
import { findStreams } from '../../ledger/streams.ts';
import type { ResultStreams } from '../../notes/result.ts';
import type { Heads } from '../../pages/heads.ts';
import { MAX_TEXT_BYTES } from '../../pages/stream.ts';
import type { Identities, SealedName } from '../jobs/sealed.ts';
import type { Site } from '../site/site.ts';
import { isDepositOf, type JobEntries, type PlacedEntry } from './entries.ts';
import { addKey } from './keys.ts';
import { addPlain } from './plain.ts';
import { type BagWriter, UnreadableStream, type Written } from './writer.ts';

/** An upload that was copied. */
export interface CopiedUpload {
  name: string;
  /** The directory of the upload in the package. */
  folder: string;
  /** The archive that contained it. */
  pack: string | undefined;
  verdict: Verdict & { findings: Finding[] };
  heads: Heads;
  /** The deposit that it was compared with, and the custody entry, if that may be handed over. */
  deposit: Deposit | undefined;
  entry: PlacedEntry | undefined;
  /** The sealed streams that are included decrypted; `unopened` says why others are not. */
  opened: readonly SealedName[];
  unopened: readonly string[];
}

/** Where the uploads of some jobs are. */
export interface Places {
  evidence: Evidence;
  packs: ReadonlyMap<string, OpenedPack>;
  /** The identities that open sealed streams; undefined for none. */
  identities: Identities | undefined;
}

interface OpenedPack {
  /** The uploads of the jobs, by name. */
  groups: ReadonlyMap<string, PackedGroup>;
  judge: (name: string) => Verdict;
}

/** Kinds of findings that describe an upload and do not count against it. */
const REMARKS: readonly string[] = ['older', 'incomplete', 'differing', 'lock-abandoned'];

export function isRemark({ kind }: Finding): boolean {
  return REMARKS.includes(kind);
}

/**
 * Finds the archives of uploads; each manifest is read once. Throws Failure `failed` for one that
 * cannot be read.
 */
export async function findPlaces(
  site: Site,
  evidence: Evidence,
  jobs: readonly Job[],
  identities: Identities | undefined,
): Promise<Places> {
  const wanted = new Map<string, Set<string>>();
  const want = (pack: string, name: string): void => {
    wanted.set(pack, (wanted.get(pack) ?? new Set()).add(name));
  };
  for (const { packed } of jobs) if (packed) want(packed.pack, packed.name);
  const known = new Set(evidence.records.packs().map(({ name }) => name));
  for (const [name, { pack }] of evidence.records.watched) if (pack !== undefined && known.has(pack)) want(pack, name);
  const packs = new Map<string, OpenedPack>();
  for (const [pack, names] of wanted) {
    const groups = new Map<string, PackedGroup>();
    for (const group of readGroups(packAt(site.settings, pack)))
      if (names.has(group.name)) groups.set(group.name, group);
    // The archive itself is not verified here, because every file copied from it is.
    packs.set(pack, { groups, judge: evidence.judgePack(pack, names, false) });
  }
  return { evidence, packs, identities };
}

interface Source {
  name: string;
  pack: string | undefined;
}

/** Copies every upload of a job, oldest first, and the remaining files of interrupted uploads. */
export async function copyUploads(
  bag: BagWriter,
  site: Site,
  places: Places,
  { job, entries, folder }: { job: Job; entries: JobEntries; folder: string },
): Promise<{ uploads: CopiedUpload[]; missing: Finding[] }> {
  const uploads: CopiedUpload[] = [];
  const told = [...entries.shown, ...entries.hidden].flatMap(({ deposits }) => deposits.filter(isDepositOf(job)));
  const sources = findSources(site, places, job, told);
  const counts = { upload: 0, incomplete: 0 };
  for (const { name, pack } of sources) {
    const isWhole = pack !== undefined || statGroupFile(site.settings.incomingDirectory, name, 'rdy') !== undefined;
    const kind = isWhole ? 'upload' : 'incomplete';
    counts[kind] += 1;
    const place = `${folder}/${kind}-${counts[kind]}`;
    const copied =
      pack === undefined
        ? await copyStored(bag, site, places, { name, job }, place)
        : await copyPacked(bag, site, places, { name, pack }, { place, told, job });
    addClientKey(bag, places.evidence, copied);
    const { opened, unopened } = await addPlain(bag, copied, places.identities);
    uploads.push({ ...copied, entry: findEntry(copied, entries), opened, unopened });
  }
  const names = new Set(sources.map(({ name }) => name));
  const missing = new Set(told.map(({ name }) => name).filter((name) => !names.has(name)));
  const lost = [...missing].filter((name) => places.evidence.isMissing(name));
  return { uploads, missing: lost.map((name) => describeMissing({ name })) };
}

/** A job may have uploads without a log line, and a name may belong to another job by now. */
function findSources(site: Site, { evidence, packs }: Places, job: Job, told: readonly Deposit[]): Source[] {
  const locker = site.settings.incomingDirectory;
  const found = new Map<string, Source>();
  const add = (name: string, pack?: string): void => {
    if (!found.has(`${pack}/${name}`)) found.set(`${pack}/${name}`, { name, pack });
  };
  const names = [...told.map(({ name }) => name), ...(job.packed ? [job.packed.name] : [])];
  for (const name of names)
    for (const [pack, { groups }] of packs) {
      const group = groups.get(name);
      if (group && encodeField(group.jobId) === job.jobId) add(name, pack);
    }
  const stored = new Set(job.uploads.map(({ name }) => name));
  for (const { name, jobId } of told)
    if (evidence.records.find(name)?.jobId === jobId && statGroupFile(locker, name, 'rdy')) stored.add(name);
  for (const name of stored) add(name);
  for (const name of [...job.left, ...(job.group ? [job.group.name] : [])]) if (findGroup(locker, name)) add(name);
  return [...found.values()];
}

/** `signed` describes the streams that the client signed. */
type Copied = Omit<CopiedUpload, 'entry' | 'opened' | 'unopened'> & { signed?: ResultStreams | undefined };

async function copyStored(
  bag: BagWriter,
  site: Site,
  { evidence }: Places,
  { name, job }: { name: string; job: Job },
  folder: string,
): Promise<Copied> {
  const judged = evidence.judge(name, { contents: false });
  // The client's signature is checked against the copies instead.
  const findings = judged.findings.filter(({ kind }) => !kind.startsWith('signature-'));
  const report = { ...judged, findings };
  const locker = site.settings.incomingDirectory;
  const stored = findStreams(site, { name, has: new Set() });
  const deposit = report.isAnnounced ? evidence.records.find(name) : undefined;
  const copied: Copied = { name, folder, pack: undefined, heads: {}, deposit, verdict: report };
  const { announcedAt, ready } = judged;
  const at = announcedAt === undefined ? undefined : new Date(announcedAt);
  const judge = report.isAnnounced ? judgeRecord(evidence, job, deposit, { ready, at }) : undefined;
  for (const stream of ORDER) {
    const file = stored[stream];
    if (file) await copyStream(bag, copied, stream, file.read(), { place: `${name}.${stream}`, judge });
  }
  if (report.ready !== undefined && statGroupFile(locker, name, 'rdy')?.size === report.ready.length)
    bag.addText(`${folder}/rdy`, Buffer.from(report.ready, 'latin1'));
  return copied;
}

/** The run record comes first, because it names the hash algorithm of the others. */
const ORDER = ['env', 'out', 'err'] as const;

async function copyPacked(
  bag: BagWriter,
  site: Site,
  { packs, evidence }: Places,
  { name, pack }: { name: string; pack: string },
  { place: folder, told, job }: { place: string; told: readonly Deposit[]; job: Job },
): Promise<Copied> {
  const opened = packs.get(pack);
  const group = opened?.groups.get(name);
  if (!opened || !group) throw new Failure('failed', `${name} is not in the archive ${pack}`);
  // Decrypted streams are compared with the run record while they are copied.
  const findings = opened
    .judge(name)
    .findings.filter(({ kind }) => kind !== 'size-changed' && kind !== 'digest-changed');
  const isSame = ({ sha256 }: Deposit): boolean =>
    STREAMS.every((stream) => sha256[stream] === group.files[stream].sha256);
  const own = told.filter((one) => one.name === name);
  const deposit = own.findLast(isSame) ?? own.at(-1);
  const verdict = { ...emptyReport(), findings, isAnnounced: true };
  const copied: Copied = { name, folder, pack, heads: {}, deposit, verdict };
  const at = `packed/${pack}: ${name}`;
  const announced = { ready: formatReady(group.jobId), at: new Date(group.at) };
  const judge = judgeRecord(evidence, job, deposit, announced);
  try {
    for await (const { extension, chunks } of readGroup(packAt(site.settings, pack).archive, group)) {
      if (extension === 'rdy') await bag.addStream(`${folder}/rdy`, chunks);
      else await copyStream(bag, copied, extension, chunks, { place: `${at}.${extension}`, judge });
    }
  } catch (error) {
    if (!(error instanceof Failure || error instanceof UnreadableStream)) throw error;
    findings.push({ kind: 'pack-changed', place: at, detail: error.message });
  }
  return copied;
}

/** Judges the signature in a run record. */
type JudgeRecord = (env: Buffer) => JudgedResult;

/**
 * Returns a function that judges a client's signature by the facts that the server recorded about
 * the upload: in the custody record, or otherwise in the log. Undefined for a site without result
 * keys.
 */
function judgeRecord(
  { site }: Evidence,
  { clientId, command }: Job,
  deposit: Deposit | undefined,
  { ready, at }: { ready: string | undefined; at: Date | undefined },
): JudgeRecord | undefined {
  const { resultKeys } = site;
  if (!resultKeys) return undefined;
  const facts = {
    clientId: deposit?.clientId ?? clientId,
    jobId: deposit?.jobId ?? /^Jid=(.*)\n$/.exec(ready ?? '')?.[1],
    command: deposit?.fileName ?? command,
    at: deposit?.time ?? at,
  };
  return (env) => judgeResult(env, facts, resultKeys);
}

/** Adds the key that a client signed with, if the site has it. */
function addClientKey(bag: BagWriter, { site }: Evidence, { verdict: { result, record } }: Copied): void {
  const keys = site.resultKeys?.of(record?.fields.ClientId ?? '') ?? [];
  const key = keys.find(({ name, id }) => `${name}+${id}` === result?.key);
  if (key) addKey(bag, 'clients', key.id, key.publicKey);
}

async function copyStream(
  bag: BagWriter,
  copied: Copied,
  stream: StreamName,
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
  { place, judge }: { place: string; judge: JudgeRecord | undefined },
): Promise<void> {
  const { folder, verdict, heads, deposit } = copied;
  const claim = findClaim(stream, verdict.record);
  const wanted = {
    algorithms: claim ? [claim.algorithm] : [],
    headBytes: stream === 'env' ? MAX_ENV_BYTES : MAX_TEXT_BYTES,
  };
  let written: Written;
  try {
    written = await bag.addStream(`${folder}/${stream}`, chunks, wanted);
  } catch (error) {
    // A file that cannot be read is a finding; one that cannot be written is fatal.
    if (!(error instanceof UnreadableStream)) throw error;
    verdict.streams[stream] = { state: 'unreadable', bytes: undefined, sha256: undefined, proof: undefined };
    verdict.findings.push({ kind: 'unreadable', place, detail: error.message });
    return;
  }
  const { head, size, digests } = written;
  heads[stream] = { head, size };
  if (stream === 'env') {
    Object.assign(verdict, readRunRecord(head.toString('latin1'), size));
    const result = judge?.(size > head.length ? Buffer.alloc(0) : head);
    verdict.result = result?.verdict;
    copied.signed = result?.streams;
    if (result?.problem) verdict.findings.push({ kind: result.problem[0], place, detail: result.problem[1] });
  }
  const [judged, differences] = judgeStream({ size, digests }, stream, true, deposit, claim);
  verdict.streams[stream] = judged;
  const unlike = copied.signed && compareSigned(copied.signed, stream, { bytes: size, sha256: judged.sha256 });
  if (unlike && verdict.result) {
    differences.push(unlike);
    verdict.result = { ...verdict.result, state: 'bad', words: `.${stream} is not what ${verdict.result.key} signed` };
  }
  for (const [kind, detail] of differences) verdict.findings.push({ kind, place, detail });
}

/** The custody entry of the deposit, if it may be handed over. */
function findEntry({ deposit }: Copied, { shown }: JobEntries): PlacedEntry | undefined {
  if (!deposit) return undefined;
  return shown.findLast(({ deposits }) =>
    deposits.some(
      ({ name, time, sha256 }) =>
        name === deposit.name &&
        time.getTime() === deposit.time.getTime() &&
        STREAMS.every((stream) => sha256[stream] === deposit.sha256[stream]),
    ),
  );
}
