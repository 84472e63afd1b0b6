// Checks the archives of a site against the records that webjobctl wrote when it made them, and the
// uploads in them against their deposits.
import { closeSync, existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { STREAMS, type StreamName } from 'webjob-locker';
import { type Digested, digestGroup } from '../archive/archive.ts';
import { type PackedGroup, readGroups } from '../archive/manifest.ts';
import { Failure } from '../cli/failure.ts';
import type { Finding, FindingKind } from './finding.ts';
import { isInShare, type Share } from './names.ts';
import { type Reading, readFile, statFile } from './reading.ts';
import { type CustodyRecords, type Deposit, openCustodyFile, type RecordedPack } from './records.ts';
import { compareSigned, judgeResult, type ResultVerdict } from './result.ts';
import type { ResultKeys } from './result-keys.ts';
import { compareDeposit, emptyReport, findDiffering, MAX_ENV_BYTES, type UploadReport } from './upload.ts';
import type { Verdict } from './verdict.ts';

export interface PackScope {
  /** The directory of the archives. */
  folder: string;
  /** Whether to read the archives themselves, not only their sizes and manifests. */
  contents: boolean;
  /**
   * Whether to check an archive, or an upload in one, that was recorded or changed at this time in
   * milliseconds.
   */
  isMeant(name: string, at: number): boolean;
  /** Whether the locker also has an upload of this name, which is then reported there. */
  isStored(name: string): boolean;
  /** Called with the number of bytes read. */
  count(bytes: number): void;
  /** Check only uploads of this share; files are checked with the first share. */
  share: Share;
  /** The result keys of the site; undefined when signatures are not to be checked. */
  keys?: ResultKeys | undefined;
  /** Called with the verdict on the signature of each upload. */
  tell?: (result: ResultVerdict | undefined) => void;
}

const PACK_FILE = /^(\d{4}-\d\d-\d\d(?:\.\d+)?)\.jsonl$/;
/**
 * An archive that changed within this time may not be recorded yet, so its check waits for the
 * record.
 */
const MAKING_MS = 60_000;
const WAIT_MS = 3000;
const LOOK_MS = 100;

/** Checks every archive that should be there, and reports foreign files beside them. */
export function* checkPacks(scope: PackScope, records: CustodyRecords): Generator<Finding> {
  for (const pack of records.packs()) {
    const findings = [...checkPack(scope, records, pack)];
    if (findings.length === 0) continue;
    records.refresh();
    // Otherwise the archive was removed or unpacked during the check.
    if (records.packs().some(({ archiveSha256 }) => archiveSha256 === pack.archiveSha256)) yield* findings;
  }
  if (scope.share.index > 0) return;
  for (const file of existsSync(scope.folder) ? readdirSync(scope.folder).sort() : []) {
    const [, name] = PACK_FILE.exec(file) ?? [];
    if (name === undefined || findRecorded(records, name)) continue;
    const changedAt = lstatSync(join(scope.folder, file), { throwIfNoEntry: false })?.ctimeMs;
    if (changedAt === undefined || !scope.isMeant(name, changedAt)) continue;
    const patience = Date.now() - changedAt < MAKING_MS ? WAIT_MS : 0;
    if (!waitForRecord(records, name, patience) && existsSync(join(scope.folder, file))) yield unrecordedPack(name);
  }
}

function unrecordedPack(name: string): Finding {
  return { kind: 'unrecorded', place: placeOf(`${name}.jsonl`), detail: 'an archive that webjobctl did not record' };
}

function findRecorded(records: CustodyRecords, name: string): RecordedPack | undefined {
  return records.packs().find((pack) => pack.name === name);
}

function waitForRecord(records: CustodyRecords, name: string, patience: number): boolean {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; ; waited += LOOK_MS) {
    records.refresh();
    if (findRecorded(records, name) || waited >= patience) return findRecorded(records, name) !== undefined;
    Atomics.wait(never, 0, 0, LOOK_MS);
  }
}

function* checkPack(scope: PackScope, records: CustodyRecords, pack: RecordedPack): Generator<Finding> {
  const findings = [...checkPackFiles(scope, pack)];
  if (scope.share.index === 0) yield* findings;
  if (findings.length > 0 || !scope.isMeant(pack.name, pack.time.getTime())) return;
  const path = join(scope.folder, `${pack.name}.jsonl`);
  const deposits = findDeposits(
    pack,
    records,
    namesOf(path, (name) => isInShare(name, scope.share)),
  );
  for (const packed of readPackedGroups(path))
    if (isInShare(packed.name, scope.share))
      for (const finding of judgeAndTell(scope, pack, packed, deposits(packed.name)).findings)
        if (finding.kind !== 'differing' || !scope.isStored(packed.name)) yield finding;
}

function judgeAndTell(
  scope: PackScope,
  pack: RecordedPack,
  packed: PackedGroup,
  received: Deposit | undefined,
): Verdict {
  const verdict = judgePacked(scope, pack, packed, received);
  scope.tell?.(verdict.result);
  return verdict;
}

/** Checks the archive and the manifest as files. */
function* checkPackFiles(scope: PackScope, pack: RecordedPack): Generator<Finding> {
  const { archiveBytes, archiveSha256, manifestSha256 } = pack;
  const contents = scope.contents && scope.share.index === 0;
  const parts = [
    { file: `${pack.name}.jsonl`, sha256: manifestSha256, bytes: undefined, isRead: true },
    { file: `${pack.name}.tar.gz`, sha256: archiveSha256, bytes: archiveBytes, isRead: contents },
  ];
  for (const { file, sha256, bytes, isRead } of parts) {
    const path = join(scope.folder, file);
    const found = statFile(path);
    const at = found ? Math.max(found.stats.mtimeMs, found.stats.ctimeMs) : pack.time.getTime();
    if (!scope.isMeant(pack.name, at)) continue;
    const reading = isRead ? readFile(path, { algorithms: ['sha256'] }) : found;
    if (reading && isRead) scope.count(reading.size);
    const finding = judgeFile(reading, bytes, isRead ? sha256 : undefined);
    if (finding) yield { place: placeOf(file), ...finding };
  }
}

/** The path below BaseDirectory, as findings give it. */
function placeOf(file: string): string {
  return `packed/${file}`;
}

function judgeFile(
  reading: Reading | undefined,
  bytes: number | undefined,
  sha256: string | undefined,
): Omit<Finding, 'place'> | undefined {
  if (!reading) return { kind: 'pack-missing', detail: 'webjobctl made it, and it is missing' };
  if (reading.failure) return { kind: 'unreadable', detail: reading.failure };
  if (bytes !== undefined && reading.size !== bytes)
    return { kind: 'pack-changed', detail: `${reading.size} bytes, ${bytes} when it was made` };
  if (sha256 !== undefined && reading.digests.get('sha256') !== sha256)
    return { kind: 'pack-changed', detail: 'not the SHA-256 of the custody record' };
  return undefined;
}

/**
 * Judges an upload in an archive whose files are as recorded. An upload that was changed in the
 * locker before it was archived has the changed digests in the manifest.
 */
function judgePacked(
  { folder, contents: isRead, keys }: PackScope,
  pack: RecordedPack,
  packed: PackedGroup,
  received: Deposit | undefined,
): Verdict {
  const { name, files } = packed;
  const verdict = { ...emptyReport(), isAnnounced: true };
  for (const stream of STREAMS) {
    const difference = received && compareDeposit(received, stream, files[stream]);
    if (difference) {
      const [kind, detail] = difference;
      verdict.findings.push({ kind, place: `${placeOf(pack.name)}: ${name}.${stream}`, detail });
    }
    const state = !isRead ? 'unread' : received ? 'received' : 'unproven';
    const proof = difference && `SHA-256 was ${received?.sha256[stream]}`;
    verdict.streams[stream] = { state: difference ? 'changed' : state, ...files[stream], proof };
  }
  const differing = findDiffering(name, `${placeOf(pack.name)}: ${name}`);
  if (differing) verdict.findings.push(differing);
  if (isRead && keys)
    judgeSignature(verdict, { archive: join(folder, `${pack.name}.tar.gz`), pack, packed, received }, keys);
  return verdict;
}

interface Packed {
  archive: string;
  pack: RecordedPack;
  packed: PackedGroup;
  received: Deposit | undefined;
}

/** Checks the bytes in the archive, rather than the manifest, against the client's signature. */
function judgeSignature(verdict: UploadReport, { archive, pack, packed, received }: Packed, keys: ResultKeys): void {
  let found: Digested;
  try {
    found = digestGroup(archive, packed, MAX_ENV_BYTES);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    verdict.findings.push({
      kind: 'unreadable',
      place: `${placeOf(pack.name)}: ${packed.name}`,
      detail: error.message,
    });
    return;
  }
  const facts = {
    clientId: received?.clientId,
    jobId: packed.jobId,
    command: received?.fileName,
    at: received?.time ?? new Date(packed.at),
  };
  const isRecord = packed.files.env.bytes <= MAX_ENV_BYTES;
  const { verdict: result, problem, streams } = judgeResult(isRecord ? found.record : Buffer.of(), facts, keys);
  verdict.result = result;
  const find = (stream: StreamName, [kind, detail]: [FindingKind, string]): void => {
    verdict.findings.push({ kind, place: `${placeOf(pack.name)}: ${packed.name}.${stream}`, detail });
  };
  if (problem) find('env', problem);
  for (const stream of STREAMS) {
    const { bytes } = packed.files[stream];
    const unlike = streams && compareSigned(streams, stream, { bytes, sha256: found.sha256[stream] });
    if (!unlike) continue;
    find(stream, unlike);
    verdict.result = { ...result, state: 'bad', words: `.${stream} is not what ${result.key} signed` };
  }
}

/**
 * Finds the deposits of uploads at the time of their archiving. If some names were deposited again
 * later, all records are read once more.
 */
function findDeposits(
  pack: RecordedPack,
  records: CustodyRecords,
  names: Iterable<string>,
): (name: string) => Deposit | undefined {
  const last = (name: string): Deposit | undefined => {
    const deposit = records.find(name);
    return deposit && deposit.time <= pack.time ? deposit : undefined;
  };
  const later = new Set<string>();
  for (const name of names) if (records.find(name) && !last(name)) later.add(name);
  const earlier = records.before(later, pack.time.getTime());
  return (name) => last(name) ?? earlier.get(name);
}

function* namesOf(manifest: string, isMeant: (name: string) => boolean): Generator<string> {
  for (const { name } of readPackedGroups(manifest)) if (isMeant(name)) yield name;
}

/**
 * Whether an archive has an upload with the same name and job as a deposit, but other bytes. An
 * archived upload of another job does not count: the name was free for the next job.
 */
export function isOther(folder: string, pack: string, { name, jobId, bytes, sha256 }: Deposit): boolean {
  const path = join(folder, `${pack}.jsonl`);
  if (!statFile(path)) return false;
  // A damaged manifest has a finding of its own.
  for (const packed of readPackedGroups(path, () => {})) {
    if (packed.name !== name) continue;
    const isSame = STREAMS.every((stream) => {
      const file = packed.files[stream];
      return file.bytes === bytes[stream] && file.sha256 === sha256[stream];
    });
    return !isSame && packed.jobId === jobId;
  }
  return false;
}

/**
 * Yields the uploads in a manifest. Throws the error of the system call, and the error of
 * `onDamage` for a damaged line, by default SyntaxError.
 */
function* readPackedGroups(path: string, onDamage = refuseDamage): Generator<PackedGroup> {
  const fd = openCustodyFile(path);
  try {
    yield* readGroups(fd, onDamage);
  } finally {
    closeSync(fd);
  }
}

function refuseDamage(error: SyntaxError): void {
  throw error;
}

/** Judges uploads of one archive. The archive and its manifest are read once. */
export function judgePack(
  folder: string,
  name: string,
  wanted: ReadonlySet<string>,
  records: CustodyRecords,
  { contents, keys }: Pick<PackScope, 'contents' | 'keys'>,
): (upload: string) => Verdict {
  const pack = findRecorded(records, name);
  const scope: PackScope = {
    folder,
    contents,
    isMeant: () => true,
    isStored: () => false,
    count: () => undefined,
    share: { index: 0, count: 1 },
    keys,
  };
  const findings = pack ? [...checkPackFiles(scope, pack)] : [unrecordedPack(name)];
  const verdicts = new Map<string, Verdict>();
  if (pack && findings.length === 0) {
    const deposits = findDeposits(pack, records, wanted);
    for (const packed of readPackedGroups(join(folder, `${name}.jsonl`)))
      if (wanted.has(packed.name)) verdicts.set(packed.name, judgePacked(scope, pack, packed, deposits(packed.name)));
  }
  return (upload) => verdicts.get(upload) ?? unread(findings);
}

/** The verdict on an upload in an archive that is not as recorded. */
function unread(findings: Finding[]): Verdict {
  const streams = Object.fromEntries(
    STREAMS.map((stream) => [stream, { state: 'unread', bytes: undefined, sha256: undefined, proof: undefined }]),
  ) as Record<StreamName, Verdict['streams'][StreamName]>;
  return { ...emptyReport(), streams, findings, isAnnounced: true };
}
