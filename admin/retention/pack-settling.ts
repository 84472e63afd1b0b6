// Resolves uploads that are both in an archive and in the locker, because the process that archived
// them was killed: the originals are removed, once the archive is recorded and each upload in it
// was verified again.

import { checkGroup } from '../../archive/archive.ts';
import { PACKED_EXTENSIONS, type PackedGroup } from '../../archive/manifest.ts';
import { listPacks, type Pack, readEnd, readGroups } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { readEvents } from '../../evidence/events.ts';
import { recordPacks } from './pack-making.ts';
import { type Described, describeGroup, finishRemoval, removeDescribed } from './removal.ts';
import type { Scanned } from './scan.ts';
import { dayOf } from './scan.ts';

const DAY_MS = 86_400_000;

/**
 * Returns the names of the uploads that are no longer in the locker. `groups` may be removed: no
 * process writes them, and no hold covers them.
 */
export async function settlePacks(settings: ServerSettings, groups: readonly Scanned[]): Promise<Set<string>> {
  const byName = new Map(groups.map((group) => [group.name, group]));
  // An upload that has lost its .rdy is as old as its streams, which may be from the day before.
  const days = new Set(groups.flatMap(({ at }) => [dayOf(at, settings), dayOf(at + DAY_MS, settings)]));
  const gone = new Set<string>();
  for (const pack of listPacks(settings).filter(({ day }) => days.has(day))) {
    let isRecorded = false;
    for (const packed of readGroups(pack)) {
      const group = byName.get(packed.name);
      if (!group || gone.has(packed.name)) continue;
      const described = await describeGroup(settings.incomingDirectory, packed.name);
      if (!isCovered(described, packed)) continue;
      await checkGroup(pack.archive, packed);
      if (!isRecorded) ensureRecorded(settings, pack);
      isRecorded = true;
      if (await settle(settings.incomingDirectory, group, packed, described)) gone.add(packed.name);
    }
  }
  return gone;
}

async function settle(locker: string, group: Scanned, packed: PackedGroup, described: Described): Promise<boolean> {
  if (!group.isComplete) return finishRemoval(locker, packed.name, packed.files);
  return removeDescribed(locker, [described]).length === 0;
}

/** Whether every existing file is the one that was archived. */
function isCovered({ files }: Described, packed: PackedGroup): boolean {
  return PACKED_EXTENSIONS.every((extension) => {
    const file = files[extension];
    return file === undefined || file.sha256 === packed.files[extension].sha256;
  });
}

/**
 * Names are used again after `unpack`, so only the archive's digest shows which archive a record
 * means. An archive with fewer recorded names than uploads lacks records that a kill prevented.
 */
function ensureRecorded(settings: ServerSettings, pack: Pack): void {
  const end = readEnd(pack.manifest);
  let count = 0;
  for (const record of readEvents(settings, 'pack'))
    if (record.pack === pack.name && record.archiveSha256 === end.archiveSha256) count += record.names.length;
  if (count < end.groups) recordPacks(settings, [{ pack, end, groups: readGroups(pack) }]);
}
