// What lies both in a pack and in the locker, because whoever packed it was killed: the originals go, once the pack is on record and each
// group in it was read again.

import { checkGroup } from '../../archive/archive.ts';
import { PACKED_EXTENSIONS, type PackedGroup } from '../../archive/manifest.ts';
import { listPacks, type Pack, readEnd, readGroups } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/controls.ts';
import { readEvents } from '../../evidence/events.ts';
import { recordPack } from './pack-making.ts';
import { type Described, describeGroup, finishRemoval, removeDescribed } from './removal.ts';
import type { Surveyed } from './survey.ts';
import { dayOf } from './survey.ts';

const DAY_MS = 86_400_000;

/** Returns the names of the groups that are in the locker no longer. `groups` may go: nobody writes them, nothing holds them. */
export async function settlePacks(settings: ServerSettings, groups: readonly Surveyed[]): Promise<Set<string>> {
  const byName = new Map(groups.map((group) => [group.name, group]));
  // What has lost its .rdy is as old as its streams, which can be of the day before.
  const days = new Set(groups.flatMap(({ at }) => [dayOf(at, settings), dayOf(at + DAY_MS, settings)]));
  const gone = new Set<string>();
  for (const pack of listPacks(settings).filter(({ day }) => days.has(day))) {
    let isRecorded = false;
    for await (const packed of readGroups(pack)) {
      const group = byName.get(packed.name);
      if (!group || gone.has(packed.name)) continue;
      const described = await describeGroup(settings.incomingDirectory, packed.name);
      if (!isCovered(described, packed)) continue;
      await checkGroup(pack.archive, packed);
      if (!isRecorded) await ensureRecorded(settings, pack);
      isRecorded = true;
      if (await settle(settings.incomingDirectory, group, packed, described)) gone.add(packed.name);
    }
  }
  return gone;
}

async function settle(locker: string, group: Surveyed, packed: PackedGroup, described: Described): Promise<boolean> {
  if (!group.isComplete) return finishRemoval(locker, packed.name, packed.files);
  return removeDescribed(locker, [described]).length === 0;
}

/** Every file that is there is the one that was packed. */
function isCovered({ files }: Described, packed: PackedGroup): boolean {
  return PACKED_EXTENSIONS.every((extension) => {
    const file = files[extension];
    return file === undefined || file.sha256 === packed.files[extension].sha256;
  });
}

/**
 * A name comes again after an unpack: only the archive tells which pack a record means. What a kill kept from being recorded is what a pack
 * lacks that has fewer names on record than groups.
 */
async function ensureRecorded(settings: ServerSettings, pack: Pack): Promise<void> {
  const end = await readEnd(pack.manifest);
  let count = 0;
  for (const record of readEvents(settings, 'pack'))
    if (record.pack === pack.name && record.archiveSha256 === end.archiveSha256) count += record.names.length;
  if (count < end.groups) await recordPack(settings, pack, end, readGroups(pack));
}
