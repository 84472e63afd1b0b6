// The packs of a site: each against what webjobctl put on record when it made it, and the groups in it against what was deposited.
import { closeSync, constants, existsSync, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { STREAMS } from 'webjob-locker';
import { makeCutter } from '../history/lines.ts';
import { type PackedGroup, parsePackedGroup } from '../packs/manifest.ts';
import type { Finding } from './finding.ts';
import { readFile, statFile } from './reading.ts';
import type { CustodyRecords, RecordedPack } from './records.ts';

export interface PackScope {
  /** Where packs are. */
  folder: string;
  /** Read the archives; else only their sizes, and the manifests. */
  contents: boolean;
  /** Whether a pack is meant that was put on record at an instant, or was changed at it. */
  isMeant(name: string, at: number): boolean;
  /** Told of what was read. */
  count(bytes: number): void;
}

const PACK_FILE = /^(\d{4}-\d\d-\d\d(?:\.\d+)?)\.jsonl$/;
const MAX_LINE_BYTES = 1 << 20;
const BLOCK_BYTES = 256 * 1024;
/** One that is younger may be put on record in this moment: so long we wait for it. */
const MAKING_MS = 60_000;
const WAIT_MS = 3000;
const LOOK_MS = 100;

/** Every pack that ought to be there, and what is there besides. */
export function* checkPacks(scope: PackScope, records: CustodyRecords): Generator<Finding> {
  for (const pack of records.packs()) {
    const findings = [...checkPack(scope, records, pack)];
    if (findings.length === 0) continue;
    records.refresh();
    // Else it was removed or unpacked while we looked.
    if (records.packs().some(({ archiveSha256 }) => archiveSha256 === pack.archiveSha256)) yield* findings;
  }
  for (const file of existsSync(scope.folder) ? readdirSync(scope.folder).sort() : []) {
    const [, name] = PACK_FILE.exec(file) ?? [];
    if (name === undefined || isRecorded(records, name)) continue;
    const changedAt = lstatSync(join(scope.folder, file), { throwIfNoEntry: false })?.ctimeMs;
    if (changedAt === undefined || !scope.isMeant(name, changedAt)) continue;
    const patience = Date.now() - changedAt < MAKING_MS ? WAIT_MS : 0;
    if (!waitForRecord(records, name, patience) && existsSync(join(scope.folder, file)))
      yield { kind: 'unrecorded', place: placeOf(file), detail: 'a pack that webjobctl did not put on record' };
  }
}

function isRecorded(records: CustodyRecords, name: string): boolean {
  return records.packs().some((pack) => pack.name === name);
}

function waitForRecord(records: CustodyRecords, name: string, patience: number): boolean {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; ; waited += LOOK_MS) {
    records.refresh();
    if (isRecorded(records, name) || waited >= patience) return isRecorded(records, name);
    Atomics.wait(never, 0, 0, LOOK_MS);
  }
}

function* checkPack(scope: PackScope, records: CustodyRecords, pack: RecordedPack): Generator<Finding> {
  const { archiveBytes, archiveSha256, manifestSha256 } = pack;
  const parts = [
    { file: `${pack.name}.jsonl`, sha256: manifestSha256, bytes: undefined, isRead: true },
    { file: `${pack.name}.tar.gz`, sha256: archiveSha256, bytes: archiveBytes, isRead: scope.contents },
  ];
  let isSound = true;
  for (const { file, sha256, bytes, isRead } of parts) {
    const path = join(scope.folder, file);
    const found = statFile(path);
    const at = found ? Math.max(found.stats.mtimeMs, found.stats.ctimeMs) : pack.time.getTime();
    if (!scope.isMeant(pack.name, at)) continue;
    const reading = isRead ? readFile(path, { algorithms: ['sha256'] }) : found;
    if (reading && isRead) scope.count(reading.size);
    const finding = judge(reading, bytes, isRead ? sha256 : undefined);
    if (!finding) continue;
    isSound = false;
    yield { place: placeOf(file), ...finding };
  }
  if (isSound) yield* checkGroups(scope, records, pack);
}

/** As it is told: below BaseDirectory. */
function placeOf(file: string): string {
  return `packed/${file}`;
}

function judge(
  reading: ReturnType<typeof readFile>,
  bytes: number | undefined,
  sha256: string | undefined,
): Omit<Finding, 'place'> | undefined {
  if (!reading) return { kind: 'pack-missing', detail: 'webjobctl made it, and it is not there' };
  if (reading.failure) return { kind: 'unreadable', detail: reading.failure };
  if (bytes !== undefined && reading.size !== bytes)
    return { kind: 'pack-changed', detail: `${reading.size} bytes, ${bytes} when it was made` };
  if (sha256 !== undefined && reading.digests.get('sha256') !== sha256)
    return { kind: 'pack-changed', detail: 'not the SHA-256 of the custody record' };
  return undefined;
}

/** What was changed in the locker before it was packed, its manifest has as it was packed. */
function* checkGroups({ folder, isMeant }: PackScope, records: CustodyRecords, pack: RecordedPack): Generator<Finding> {
  if (!isMeant(pack.name, pack.time.getTime())) return;
  for (const { name, files } of readGroups(join(folder, `${pack.name}.jsonl`))) {
    const deposit = records.find(name);
    // One that came later has nothing to do with it.
    if (!deposit || deposit.time > pack.time) continue;
    for (const stream of STREAMS) {
      const place = `${placeOf(pack.name)}: ${name}.${stream}`;
      if (files[stream].bytes !== deposit.bytes[stream])
        yield {
          kind: 'size-changed',
          place,
          detail: `${files[stream].bytes} bytes, ${deposit.bytes[stream]} when it was deposited`,
        };
      else if (files[stream].sha256 !== deposit.sha256[stream])
        yield { kind: 'digest-changed', place, detail: 'not the SHA-256 of the custody record' };
    }
  }
}

/** Of a manifest that is the one on record, so that a line that is none is nobody's accident. */
function* readGroups(path: string): Generator<PackedGroup> {
  const cutter = makeCutter((text, offset) => (offset === 0 ? undefined : parsePackedGroup(text)), MAX_LINE_BYTES);
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    for (let count = 1; count > 0; ) {
      count = readSync(fd, buffer, 0, buffer.length, null);
      yield* cutter.cut(buffer.subarray(0, count));
    }
  } finally {
    closeSync(fd);
  }
}
