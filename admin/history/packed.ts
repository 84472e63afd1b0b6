// The uploads that lie in packs, by the jobs they belong to. Of each no more than a few bytes are kept: where in a manifest its line stands.
// A manifest is read only when a job is asked for that can be in it, and none when there are no packs.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { encodeField } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/controls.ts';
import { errorCode } from '../files.ts';
import { warn } from '../output.ts';
import { type PackedGroup, parsePackedGroup } from '../packs/manifest.ts';
import { listPacks, type Pack } from '../packs/packs.ts';
import { makeCutter } from './lines.ts';

export interface PackedJob {
  /** As the log writes it. */
  jobId: string | undefined;
  clientId: string | undefined;
  command: string | undefined;
  at: Date;
}

export interface Packed {
  pack: Pack;
  group: PackedGroup;
}

export interface PackedUploads {
  /** The upload of a job; of several the last that was packed. */
  find(job: PackedJob): Packed | undefined;
  /** Every one that was not found by that, of days from that of `since` on. */
  others(since: Date | undefined): Generator<Packed>;
}

/** What is in a pack was announced before the pack was made; clocks of several machines may differ by so much. */
const CLOCK_MS = 3_600_000;
const DAY_MS = 86_400_000;
const BLOCK_BYTES = 256 * 1024;

interface Manifest {
  pack: Pack;
  fd: number;
  madeAt: number;
  /** The first of the numbers of its groups; undefined before it was read. */
  first: number | undefined;
}

/** Keeps every manifest open that there is now, until `close`. */
export function openPacked(settings: ServerSettings): PackedUploads & { close(): void } {
  const manifests = openManifests(settings);
  const places = new Map<number, number[]>();
  const owners: Manifest[] = [];
  const offsets: number[] = [];
  const claimed = new Set<number>();
  const load = (manifest: Manifest): void => {
    manifest.first = offsets.length;
    for (const { group, offset } of readLines(manifest)) {
      const hash = hashJob(encodeField(group.jobId), group.clientId, group.command);
      const same = places.get(hash);
      if (same) same.push(offsets.length);
      else places.set(hash, [offsets.length]);
      owners.push(manifest);
      offsets.push(offset);
    }
  };
  return {
    find({ jobId, clientId, command, at }) {
      for (const manifest of manifests)
        if (manifest.first === undefined && !(manifest.madeAt < at.getTime() - CLOCK_MS)) load(manifest);
      let found: Packed | undefined;
      for (const number of places.get(hashJob(jobId, clientId, command)) ?? []) {
        const manifest = owners[number];
        const group = manifest && readGroupAt(manifest, offsets[number] ?? 0);
        if (!group || encodeField(group.jobId) !== jobId) continue;
        if (group.clientId !== clientId || group.command !== command) continue;
        claimed.add(number);
        found = { pack: manifest.pack, group };
      }
      return found;
    },
    *others(since) {
      for (const manifest of manifests) {
        // The days of packs are those of the site's clock, whatever zone that is in.
        if (since && Date.parse(manifest.pack.day) + 2 * DAY_MS < since.getTime()) continue;
        if (manifest.first === undefined) load(manifest);
        let number = manifest.first ?? 0;
        for (const { group } of readLines(manifest)) {
          const isWanted = !claimed.has(number++) && (!since || new Date(group.at) >= since);
          if (isWanted) yield { pack: manifest.pack, group };
        }
      }
    },
    close() {
      for (const { fd } of manifests) closeSync(fd);
    },
  };
}

function openManifests(settings: ServerSettings): Manifest[] {
  return listPacks(settings).flatMap((pack) => {
    try {
      const fd = openSync(pack.manifest, 'r');
      return [{ pack, fd, madeAt: fstatSync(fd).mtimeMs, first: undefined }];
    } catch (error) {
      // Unpacked or pruned at this moment.
      if (errorCode(error) !== 'ENOENT') warn(`${pack.manifest} is passed over: ${errorCode(error)}`);
      return [];
    }
  });
}

interface Line {
  group: PackedGroup;
  /** Where it begins. */
  offset: number;
}

/** The groups of a manifest; one that is damaged is read as far as it goes. */
function* readLines({ pack, fd }: Manifest): Generator<Line> {
  let offset = 0;
  let isFirst = true;
  const cutter = makeCutter((text): Line | undefined => {
    const line = { text, offset };
    offset += Buffer.byteLength(text) + 1;
    if (isFirst) {
      isFirst = false;
      return undefined;
    }
    const group = parsePackedGroup(line.text);
    return group && { group, offset: line.offset };
  }, MAX_LINE_BYTES);
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  try {
    for (let at = 0; ; ) {
      const count = readSync(fd, buffer, 0, buffer.length, at);
      if (count === 0) break;
      yield* cutter.cut(buffer.subarray(0, count));
      at += count;
    }
  } catch (error) {
    warn(`${pack.manifest} is damaged and was read as far as it goes: ${(error as Error).message}`);
  }
}

const MAX_LINE_BYTES = 1 << 20;
/** Most lines are shorter. */
const LINE_BYTES = 4096;

function readGroupAt({ fd }: Manifest, offset: number): PackedGroup | undefined {
  for (let length = LINE_BYTES; length <= 2 * MAX_LINE_BYTES; length *= 8) {
    const buffer = Buffer.allocUnsafe(length);
    const count = readSync(fd, buffer, 0, length, offset);
    const end = buffer.subarray(0, count).indexOf(10);
    if (end >= 0) return parsePackedGroup(buffer.toString('utf8', 0, end));
    if (count < length) return undefined;
  }
  return undefined;
}

/** 53 bits of a text, so that a key takes a few bytes: whoever finds one looks whether it is the one. FNV-1a, twice. */
function hashJob(jobId: string | undefined, clientId: string | undefined, command: string | undefined): number {
  const text = `${jobId ?? ''} ${clientId ?? ''} ${command ?? ''}`;
  let [low, high] = [0x811c9dc5, 0x01000193];
  for (let at = 0; at < text.length; at++) {
    low = Math.imul(low ^ text.charCodeAt(at), 0x01000193);
    high = Math.imul(high ^ text.charCodeAt(at), 0x5bd1e995);
  }
  return (low >>> 0) + ((high >>> 11) & 0x1fffff) * 2 ** 32;
}
