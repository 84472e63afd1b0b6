// Removes archives, the manifest first, so that no manifest exists without its archive.
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { listFiles, listPacks, type Pack, packAt, packsFolder, readEnd, readGroups } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { BATCH, type RemovedGroup, readEvents, recordEvent } from '../../evidence/events.ts';
import { digestFile } from '../../evidence/reading.ts';
import { findHold, type Hold, readHolds } from './holds.ts';
import { describePack } from './pack-making.ts';

/** Archives that contain nothing newer than a given time. */
export interface OldPacks {
  free: Pack[];
  /** Archives with at least one upload on hold. */
  held: Pack[];
}

export async function findOldPacks(settings: ServerSettings, before: number): Promise<OldPacks> {
  const holds = readHolds(settings);
  const found: OldPacks = { free: [], held: [] };
  for (const pack of listPacks(settings)) {
    // A cheap test first, since most are newer: no day begins more than 14 hours before it does in
    // UTC.
    if (Date.parse(pack.day) - 14 * 3_600_000 >= before) continue;
    let [isOld, isHeld] = [true, false];
    for (const { name, jobId, at, clients } of readGroups(pack)) {
      if (Date.parse(at) >= before) isOld = false;
      if (findHold(holds, { name, jobId, clients })) isHeld = true;
    }
    if (isOld) found[isHeld ? 'held' : 'free'].push(pack);
  }
  return found;
}

/**
 * Records the removal of an archive with every upload in it, and removes it. Returns false when one
 * of the uploads is on hold by now.
 */
export async function prunePack(settings: ServerSettings, pack: Pack, rule: string): Promise<boolean> {
  if (await isHeld(pack, readHolds(settings))) return false;
  let groups: RemovedGroup[] = [];
  const record = (): void => {
    const names = groups.map(({ name }) => name);
    if (names.length > 0) recordEvent(settings, { event: 'prune', rule, names, groups, pack: pack.name });
    groups = [];
  };
  for (const { name, jobId, files } of readGroups(pack)) {
    groups.push({ name, jobId, files });
    if (groups.length === BATCH) record();
  }
  record();
  recordEvent(settings, { event: 'prune-pack', rule, ...describePack(pack, readEnd(pack.manifest)) });
  removePack(settings, pack);
  return true;
}

async function isHeld(pack: Pack, holds: readonly Hold[]): Promise<boolean> {
  if (holds.length > 0) for (const group of readGroups(pack)) if (findHold(holds, group)) return true;
  return false;
}

export function removePack(settings: ServerSettings, pack: Pack): void {
  for (const path of [pack.manifest, pack.archive]) {
    rmSync(path, { force: true });
    syncFolder(packsFolder(settings));
  }
}

/**
 * Removes archives without a manifest whose removal is on record, if they are the recorded ones.
 */
export async function finishPackRemovals(settings: ServerSettings): Promise<void> {
  const names = listFiles(settings).flatMap((file) => /^(.+)\.tar\.gz$/.exec(file)?.[1] ?? []);
  const left = new Set(names.filter((name) => !existsSync(packAt(settings, name).manifest)));
  if (left.size === 0) return;
  for (const event of ['prune-pack', 'unpack'] as const) {
    for (const record of readEvents(settings, event)) {
      if (!left.has(record.pack)) continue;
      const archive = join(packsFolder(settings), `${record.pack}.tar.gz`);
      if (digestFile(archive).sha256 !== record.archiveSha256) continue;
      rmSync(archive, { force: true });
      left.delete(record.pack);
    }
  }
  syncFolder(packsFolder(settings));
}
