// Makes an archive so that a kill at any moment loses nothing: archive and manifest are written
// under temporary names, synced, read back and compared; then they are renamed; then the custody
// record is written; and only then does the caller remove the originals.
import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
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
import { BATCH, type PackFacts, recordEvent } from '../../evidence/events.ts';
import { digestFile } from '../../evidence/reading.ts';
import { describeEnding, ENDING_FIELDS, fieldPattern, parseRecordFields } from '../../ledger/ending.ts';
import { isRoot } from '../site/users.ts';
import type { Described } from './removal.ts';
import type { Surveyed } from './survey.ts';

/** The suffix of an unfinished file. */
const PART = '.part';
/** The other fields of a run record are not needed for how the run ended. */
const ENDING_PATTERN = fieldPattern(ENDING_FIELDS.join('|'));

export interface Made {
  pack: Pack;
  end: ManifestEnd;
  /** Uploads that may be removed now. */
  packed: Described[];
  /** Names of uploads that could not be archived. */
  left: string[];
}

/** Archives uploads of one day. Undefined when none of them could be archived. */
export async function makePack(
  settings: ServerSettings,
  day: string,
  groups: readonly Surveyed[],
  advance: () => void,
): Promise<Made | undefined> {
  const pack = nextPack(settings, day);
  const made = await writePack(settings, pack, groups, advance);
  if (!made) return undefined;
  namePack(settings, pack);
  await recordPack(settings, pack, made.end, made.packed);
  return { pack, ...made };
}

/**
 * Writes archive and manifest under temporary names. Undefined when no upload could be archived;
 * then, and after an error, neither file is left.
 */
async function writePack(
  settings: ServerSettings,
  pack: Pack,
  groups: readonly Surveyed[],
  advance: () => void,
): Promise<Omit<Made, 'pack'> | undefined> {
  let isWhole = false;
  try {
    const made = await writeParts(settings, pack, groups, advance);
    if (made.packed.length === 0) return undefined;
    const end = await endManifest(pack, made.packed.length);
    isWhole = true;
    return { end, ...made };
  } finally {
    // Otherwise it would keep a full disk full.
    if (!isWhole) removeParts(pack);
  }
}

/** Opens a file that is private until it is known who may read its contents. */
function openClosed(path: string): number {
  return openSync(path, 'wx', 0o600);
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

async function writeParts(
  settings: ServerSettings,
  pack: Pack,
  groups: readonly Surveyed[],
  advance: () => void,
): Promise<Pick<Made, 'packed' | 'left'>> {
  const made: Pick<Made, 'packed' | 'left'> = { packed: [], left: [] };
  const [archive, manifest] = [openClosed(pack.archive + PART), openClosed(pack.manifest + PART)];
  let readers: Readers | undefined;
  try {
    const head: ManifestHead = { format: 1, day: pack.day, archive: `${pack.name}.tar.gz` };
    const [members, lines] = [new Appender(archive), new Appender(manifest)];
    lines.add(formatLine(head));
    for (const group of groups) {
      const found = await packGroup(members, settings.incomingDirectory, group);
      if (found) {
        lines.add(formatLine(found.packed));
        made.packed.push(found.described);
        readers = bothMay(readers, found.readers);
      } else made.left.push(group.name);
      advance();
    }
    appendEnd(members);
    members.flush();
    lines.flush();
    // An upload that changed while it was read may have left more bytes.
    ftruncateSync(archive, members.position);
    for (const fd of [archive, manifest]) openToReaders(fd, settings.incomingDirectory, readers);
    syncFile(archive);
    syncFile(manifest);
  } finally {
    closeSync(manifest);
    closeSync(archive);
  }
  return made;
}

/** Archives one upload; undefined for one that is not complete, or that a process changes. */
async function packGroup(
  archive: Appender,
  locker: string,
  { name, jobId, at, clients, owner }: Surveyed,
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

/** Reads everything back from the written files, and adds the last line of the manifest. */
async function endManifest(pack: Pack, groups: number): Promise<ManifestEnd> {
  const archive = pack.archive + PART;
  const { bytes: archiveBytes, sha256: archiveSha256 } = digestFile(archive);
  const end: ManifestEnd = { groups, archiveBytes, archiveSha256 };
  const fd = openSync(pack.manifest + PART, 'a');
  try {
    writeAll(fd, formatLine(end));
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
  await checkGroups(archive, readManifest(pack.manifest + PART));
  return end;
}

function namePack(settings: ServerSettings, pack: Pack): void {
  const folder = packsFolder(settings);
  renameSync(pack.archive + PART, pack.archive);
  syncFolder(folder);
  renameSync(pack.manifest + PART, pack.manifest);
  syncFolder(folder);
}

/** Records an archive with every upload in it. */
export async function recordPack(
  settings: ServerSettings,
  pack: Pack,
  end: ManifestEnd,
  groups: Iterable<{ name: string }>,
): Promise<void> {
  const facts = await describePack(pack, end);
  let names: string[] = [];
  const record = (): void => {
    if (names.length > 0) recordEvent(settings, { event: 'pack', names, ...facts });
    names = [];
  };
  for (const { name } of groups) {
    names.push(name);
    if (names.length === BATCH) record();
  }
  record();
}

/** The description of an archive for a record. */
export async function describePack(
  pack: Pack,
  { groups, archiveBytes, archiveSha256 }: ManifestEnd,
): Promise<PackFacts> {
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
