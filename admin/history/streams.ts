// The streams of an upload as they lie in the locker, one to be read at a time and piece by piece: the one place that knows how.
import { constants, createReadStream, openSync } from 'node:fs';
import { join } from 'node:path';
import { type Group, STREAMS, type StreamName, statGroupFile } from 'webjob-locker';
import type { Site } from '../site.ts';

export interface StoredStream {
  bytes: number;
  /** Where it lies as a file of its own. */
  path: string;
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
