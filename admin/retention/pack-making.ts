// Makes an archive so that a kill at any moment loses nothing: archive and manifest are written
// under temporary names, synced, read back and compared; then they are renamed; then the custody
// record is written; and only then does the caller remove the originals.
import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { syncFile, syncFolder, writeAll } from 'webjob-locker/durable';
import { Appender } from '../../archive/appender.ts';
import { appendEnd, appendGroup, ChangedFile, checkGroups, type Readers } from '../../archive/archive.ts';
import { type ManifestEnd, type ManifestHead, type PackedGroup, readManifest } from '../../archive/manifest.ts';
import { listFiles, nextPack, type Pack, packAt, packsFolder, readEnd } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { BATCH, type KeepEvent, type PackFacts, recordEvents } from '../../evidence/events.ts';
import { digestFile } from '../../evidence/reading.ts';
import { describeEnding, ENDING_FIELDS, fieldPattern, parseRecordFields } from '../../ledger/ending.ts';
import { isRoot } from '../site/users.ts';
import type { Described } from './removal.ts';
import type { Scanned } from './scan.ts';

/** The suffix of an unfinished file. */
const PART = '.part';
/** Matches the fields of a run record that say how the run ended; no others are needed. */
const ENDING_PATTERN = fieldPattern(ENDING_FIELDS.join('|'));

/** The maximum numbers of uploads, archives and bytes that are archived together. */
const MAX_TOGETHER = { uploads: 4000, archives: 64, bytes: 64 * 1024 * 1024 };

/** A day that is being archived. */
interface Day {
  pack: Pack;
  /** Uploads in the archive. */
  packed: Described[];
  /** Names of uploads that could not be archived. */
  left: string[];
}

/** An archived day. */
export interface Made extends Day {
  /**
   * The end of the manifest; undefined when no upload could be archived, and there is no archive.
   */
  end: ManifestEnd | undefined;
}

/** An archive and its manifest under temporary names, and their descriptors. */
interface Parts extends Day {
  archive: number;
  manifest: number;
}

/**
 * Days that are archived together. They share the waits for directories and for the custody record,
 * which take longer than archiving a day with few uploads.
 */
export class PackBatch {
  readonly #settings: ServerSettings;
  #days: Parts[] = [];
  #room = { ...MAX_TOGETHER };

  constructor(settings: ServerSettings) {
    this.#settings = settings;
  }

  get isFull(): boolean {
    return Object.values(this.#room).some((room) => room <= 0);
  }

  /** Writes uploads of one day. After an error neither file of that day is left. */
  async add(day: string, groups: readonly Scanned[], advance: () => void): Promise<void> {
    const parts = openParts(nextPack(this.#settings, day));
    this.#days.push(parts);
    try {
      await writeParts(parts, this.#settings.incomingDirectory, groups, advance);
    } catch (error) {
      this.#days.pop();
      dropParts(parts);
      throw error;
    }
    this.#room.uploads -= groups.length;
    this.#room.archives -= 1;
    this.#room.bytes -= fstatSync(parts.archive).size;
  }

  /**
   * Completes the archives, gives them their names and records them; then `use` may remove the
   * originals. When an archive fails, those before it are completed before the error is thrown.
   */
  async finish(use: (made: readonly Made[]) => void): Promise<void> {
    const days = this.#days;
    [this.#days, this.#room] = [[], { ...MAX_TOGETHER }];
    const made: Made[] = [];
    try {
      for (const parts of days) {
        const { pack, packed, left } = parts;
        made.push({ pack, packed, left, end: packed.length > 0 ? await endParts(parts) : undefined });
      }
    } finally {
      for (const [index, parts] of days.entries()) {
        if (made[index]?.end) closeParts(parts);
        else dropParts(parts);
      }
      const whole = made.flatMap(({ pack, packed, end }) => (end ? { pack, end, groups: packed } : []));
      namePacks(this.#settings, whole);
      recordPacks(this.#settings, whole);
      use(made);
    }
  }
}

function openParts(pack: Pack): Parts {
  const archive = openClosed(pack.archive + PART, 'wx');
  try {
    return { pack, packed: [], left: [], archive, manifest: openClosed(pack.manifest + PART, 'ax') };
  } catch (error) {
    closeSync(archive);
    removeParts(pack);
    throw error;
  }
}

function closeParts({ archive, manifest }: Parts): void {
  closeSync(manifest);
  closeSync(archive);
}

/** Otherwise unfinished files would keep a full disk full. */
function dropParts(parts: Parts): void {
  closeParts(parts);
  removeParts(parts.pack);
}

/** Opens a new file that is private until it is known who may read its contents. */
function openClosed(path: string, flags: 'wx' | 'ax'): number {
  return openSync(path, flags, 0o600);
}

function bothMay(one: Readers | undefined, other: Readers): Readers {
  if (!one) return other;
  return { mode: one.mode & other.mode, gid: one.gid === other.gid ? one.gid : undefined };
}

/** Makes an archive readable for those who could read every upload in it before. */
function openToReaders(fd: number, locker: string, readers: Readers | undefined): void {
  const { mode, gid } = statSync(locker);
  const mayAll = (rights: number): boolean => ((readers?.mode ?? 0) & rights) === rights;
  const isPublic = (mode & 0o005) === 0o005 && mayAll(0o044);
  const isForGroup = (mode & 0o050) === 0o050 && mayAll(0o040) && readers?.gid === gid;
  if (isForGroup && !isPublic && isRoot()) fchownSync(fd, 0, gid);
  fchmodSync(fd, (isPublic ? 0o644 : isForGroup ? 0o640 : 0o600) & ~process.umask());
}

/** Writes archive and manifest, except for the end of the manifest. */
async function writeParts(
  { pack, archive, manifest, packed, left }: Parts,
  locker: string,
  groups: readonly Scanned[],
  advance: () => void,
): Promise<void> {
  let readers: Readers | undefined;
  const head: ManifestHead = { format: 1, day: pack.day, archive: `${pack.name}.tar.gz` };
  const [members, lines] = [new Appender(archive), new Appender(manifest)];
  lines.add(formatLine(head));
  for (const group of groups) {
    const found = await packGroup(members, locker, group);
    if (found) {
      lines.add(formatLine(found.packed));
      packed.push(found.described);
      readers = bothMay(readers, found.readers);
    } else left.push(group.name);
    advance();
  }
  appendEnd(members);
  members.flush();
  lines.flush();
  // An upload that changed while it was read may have left more bytes.
  ftruncateSync(archive, members.position);
  for (const fd of [archive, manifest]) openToReaders(fd, locker, readers);
}

/**
 * Archives one upload; undefined for one that is not complete, or that another process is changing.
 */
async function packGroup(
  archive: Appender,
  locker: string,
  { name, jobId, at, clients, owner }: Scanned,
): Promise<{ packed: PackedGroup; described: Described; readers: Readers } | undefined> {
  if (jobId === undefined) return undefined;
  try {
    const offset = archive.position;
    const { length, files, marks, record, readers } = await appendGroup(archive, locker, name);
    const { clientId, command } = owner ?? {};
    const ending = describeEnding(parseRecordFields(record, ENDING_PATTERN));
    const facts = { name, jobId, at: new Date(at).toISOString(), clientId, command, clients, ending };
    return { packed: { ...facts, offset, length, files }, described: { name, files, marks }, readers };
  } catch (error) {
    const isGone = ['ENOENT', 'ELOOP', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '');
    if (error instanceof ChangedFile || isGone) return undefined;
    throw error;
  }
}

function formatLine(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

/** Puts archive and manifest on disk, and reads everything back from them. */
async function endParts({ pack, packed, archive, manifest }: Parts): Promise<ManifestEnd> {
  syncFile(archive);
  const { bytes: archiveBytes, sha256: archiveSha256 } = digestFile(pack.archive + PART);
  const end: ManifestEnd = { groups: packed.length, archiveBytes, archiveSha256 };
  writeAll(manifest, formatLine(end));
  syncFile(manifest);
  await checkGroups(pack.archive + PART, readManifest(pack.manifest + PART));
  return end;
}

/** The archives have their names on disk before the manifests have theirs. */
function namePacks(settings: ServerSettings, whole: readonly Whole[]): void {
  if (whole.length === 0) return;
  for (const file of ['archive', 'manifest'] as const) {
    for (const { pack } of whole) renameSync(pack[file] + PART, pack[file]);
    syncFolder(packsFolder(settings));
  }
}

/** An archive with its names, and the uploads in it. */
interface Whole {
  pack: Pack;
  end: ManifestEnd;
  groups: Iterable<{ name: string }>;
}

/** Records archives with every upload in them. */
export function recordPacks(settings: ServerSettings, whole: readonly Whole[]): void {
  recordEvents(settings, whole.flatMap(describeUploads));
}

function describeUploads({ pack, end, groups }: Whole): KeepEvent[] {
  const facts = describePack(pack, end);
  const names = Array.from(groups, ({ name }) => name);
  const events: KeepEvent[] = [];
  for (let at = 0; at < names.length; at += BATCH)
    events.push({ event: 'pack', names: names.slice(at, at + BATCH), ...facts });
  return events;
}

/** The description of an archive for a record. */
export function describePack(pack: Pack, { groups, archiveBytes, archiveSha256 }: ManifestEnd): PackFacts {
  const { sha256: manifestSha256 } = digestFile(pack.manifest);
  return { pack: pack.name, count: groups, archiveBytes, archiveSha256, manifestSha256 };
}

/**
 * Cleans up after a killed run: an archive that has its name is finished, everything else is
 * removed.
 */
export async function recoverParts(settings: ServerSettings): Promise<void> {
  for (const file of listFiles(settings)) {
    const [, name] = /^(\d{4}-\d\d-\d\d(?:\.\d+)?)\.(?:jsonl|tar\.gz)\.part$/.exec(file) ?? [];
    if (name === undefined) continue;
    const pack = packAt(settings, name);
    if (await isWhole(pack)) {
      renameSync(pack.manifest + PART, pack.manifest);
      syncFolder(packsFolder(settings));
    } else removeParts(pack);
  }
}

async function isWhole(pack: Pack): Promise<boolean> {
  const manifest = pack.manifest + PART;
  if (existsSync(pack.manifest) || !existsSync(manifest) || !existsSync(pack.archive)) return false;
  const { archiveBytes, archiveSha256 } = readEnd(manifest);
  const { bytes, sha256 } = digestFile(pack.archive);
  return bytes === archiveBytes && sha256 === archiveSha256;
}

function removeParts(pack: Pack): void {
  for (const path of [pack.archive, pack.manifest]) rmSync(path + PART, { force: true });
}
