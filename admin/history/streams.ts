// The streams of an upload as they lie in the locker or in a pack, one to be read at a time and piece by piece: the one place that knows how.
import { constants, createReadStream, openSync } from 'node:fs';
import { join } from 'node:path';
import { type Group, STREAMS, type StreamName, statGroupFile } from 'webjob-locker';
import { encodeField, formatTime } from 'webjob-protocol';
import type { Job } from '../job.ts';
import type { PackedGroup } from '../packs/manifest.ts';
import { listPacks, type Pack, readGroups, readPackedFile } from '../packs/packs.ts';
import type { Site } from '../site.ts';

export interface StoredStream {
  bytes: number;
  /** Where it lies as a file of its own; undefined in a pack. */
  path: string | undefined;
  read(): AsyncIterable<Buffer>;
}

/** The streams of a group that are there. */
export type Stored = Partial<Record<StreamName, StoredStream>>;

export function findStreams(site: Site, group: Group): Stored {
  const locker = site.settings.incomingDirectory;
  const stored: Stored = {};
  for (const name of STREAMS) {
    const found = statGroupFile(locker, group.name, name);
    const path = join(locker, `${group.name}.${name}`);
    if (found) stored[name] = { bytes: found.size, path, read: () => readFile(path) };
  }
  return stored;
}

/** No link is followed. */
function readFile(path: string): AsyncIterable<Buffer> {
  return createReadStream('', { fd: openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW) });
}

/** An upload whose files lie in a pack. */
export interface PackedUpload {
  pack: Pack;
  group: PackedGroup;
  stored: Stored;
}

/** The packed upload of a job, undefined when there is none. The pack of its day is looked at first. */
export async function findPacked(
  { settings }: Site,
  { jobId, clientId, command, at }: Job,
): Promise<PackedUpload | undefined> {
  const day = formatTime(at, settings.useGMT).slice(0, 10);
  const packs = listPacks(settings).sort((a, b) => Number(b.day === day) - Number(a.day === day));
  for (const pack of packs) {
    for await (const group of readGroups(pack)) {
      const isSame = group.clientId === clientId && group.command === command;
      if (isSame && encodeField(group.jobId) === jobId) return { pack, group, stored: packedStreams(pack, group) };
    }
  }
  return undefined;
}

export function packedStreams(pack: Pack, group: PackedGroup): Stored {
  const entries = STREAMS.map((name): [StreamName, StoredStream] => [
    name,
    { bytes: group.files[name].bytes, path: undefined, read: () => readPackedFile(pack, group, name) },
  ]);
  return Object.fromEntries(entries);
}
