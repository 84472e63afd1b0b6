// The uploads that lie in packs, by the jobs they belong to. Of each no more than a few bytes are kept: where in a manifest its line stands.
// A manifest is read only when a job is asked for that can be in it, and none when there are no packs.
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { encodeField, NOT_APPLICABLE } from 'webjob-protocol';
import { type PackedGroup, parsePackedGroup } from '../../archive/manifest.ts';
import { listPacks, type Pack } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/controls.ts';
import type { Job } from '../job.ts';
import { warn } from '../output.ts';
import { makeCutter } from './lines.ts';
import { compileNames, type NameFacts } from './names.ts';

export interface Packed {
  pack: Pack;
  group: PackedGroup;
  /** Whose it is: by the manifest, or when the log told nothing of it, by its name. */
  facts: NameFacts;
}

export interface PackedUploads {
  /** The upload of a job; of several the last that was packed. */
  find(job: Job): Packed | undefined;
  /** Every one that was not found by that, of days from that of `since` on. */
  others(since: Date | undefined): Generator<Packed>;
}

/** What is in a pack was announced before the pack was made; clocks of several machines may differ by so much. */
const CLOCK_MS = 3_600_000;
const DAY_MS = 86_400_000;
const BLOCK_BYTES = 256 * 1024;

interface Manifest {
  pack: Pack;
  madeAt: number;
  /** The first of the numbers of its groups; undefined before it was read. */
  first: number | undefined;
}

/** Keeps one manifest open at a time, until `close`. */
export function openPacked(settings: ServerSettings): PackedUploads & { close(): void } {
  const manifests = listPacks(settings).flatMap((pack): Manifest[] => {
    const found = statSync(pack.manifest, { throwIfNoEntry: false });
    return found ? [{ pack, madeAt: found.mtimeMs, first: undefined }] : [];
  });
  const parseName = compileNames(settings.putNameFormat);
  const describe = (pack: Pack, group: PackedGroup): Packed => {
    const { clientId, command } = group.clientId === undefined ? (parseName(group.name) ?? {}) : group;
    return { pack, group, facts: { clientId, command } };
  };
  const files = makeOpener();
  const places = new Map<number, number[]>();
  const owners: Manifest[] = [];
  const offsets: number[] = [];
  const claimed = new Set<number>();
  const load = (manifest: Manifest): void => {
    manifest.first = offsets.length;
    for (const { group, offset } of readLines(manifest, files.open)) {
      const hash = hashPacked(describe(manifest.pack, group));
      const same = places.get(hash);
      if (same) same.push(offsets.length);
      else places.set(hash, [offsets.length]);
      owners.push(manifest);
      offsets.push(offset);
    }
  };
  return {
    find(job) {
      for (const manifest of manifests)
        if (manifest.first === undefined && !(manifest.madeAt < job.at.getTime() - CLOCK_MS)) load(manifest);
      let found: Packed | undefined;
      for (const hash of hashesOf(job))
        for (const number of places.get(hash) ?? []) {
          const manifest = owners[number];
          const group = manifest && tryGroupAt(files.open(manifest.pack), offsets[number] ?? 0);
          const packed = group && describe(manifest.pack, group);
          if (!packed || claimed.has(number) || !isOf(packed, job)) continue;
          claimed.add(number);
          found = packed;
        }
      return found;
    },
    *others(since) {
      for (const manifest of manifests) {
        // The days of packs are those of the site's clock, whatever zone that is in.
        if (since && Date.parse(manifest.pack.day) + 2 * DAY_MS < since.getTime()) continue;
        if (manifest.first === undefined) load(manifest);
        let number = manifest.first ?? 0;
        for (const { group } of readLines(manifest, files.open)) {
          const isWanted = !claimed.has(number++) && (!since || new Date(group.at) >= since);
          if (isWanted) yield describe(manifest.pack, group);
        }
      }
    },
    close: files.close,
  };
}

/** A site may have packs of many years: one is open at a time. */
function makeOpener(): { open(pack: Pack): number | undefined; close(): void } {
  let last: { name: string; fd: number | undefined } | undefined;
  const close = (): void => {
    if (last?.fd !== undefined) closeSync(last.fd);
    last = undefined;
  };
  return {
    close,
    open(pack) {
      if (last?.name === pack.name) return last.fd;
      close();
      last = { name: pack.name, fd: openManifest(pack) };
      return last.fd;
    },
  };
}

function openManifest({ manifest }: Pack): number | undefined {
  try {
    return openSync(manifest, 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Unpacked or pruned at this moment.
    if (code !== 'ENOENT') warn(`${manifest} is passed over: ${code}`);
    return undefined;
  }
}

interface Line {
  group: PackedGroup;
  /** Where it begins. */
  offset: number;
}

/** The groups of a manifest; one that is damaged is read as far as it goes. */
function* readLines({ pack }: Manifest, open: (pack: Pack) => number | undefined): Generator<Line> {
  const cutter = makeCutter((text, offset): Line | undefined => {
    const group = offset === 0 ? undefined : parsePackedGroup(text);
    return group && { group, offset };
  }, MAX_LINE_BYTES);
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  try {
    for (let at = 0; ; ) {
      const fd = open(pack);
      const count = fd === undefined ? 0 : readSync(fd, buffer, 0, buffer.length, at);
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

/** Another manifest can have the name by now: then nothing has to be there. */
function tryGroupAt(fd: number | undefined, offset: number): PackedGroup | undefined {
  try {
    return readGroupAt(fd, offset);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function readGroupAt(fd: number | undefined, offset: number): PackedGroup | undefined {
  if (fd === undefined) return undefined;
  for (let length = LINE_BYTES; length <= 2 * MAX_LINE_BYTES; length *= 8) {
    const buffer = Buffer.allocUnsafe(length);
    const count = readSync(fd, buffer, 0, length, offset);
    const end = buffer.subarray(0, count).indexOf(10);
    if (end >= 0) return parsePackedGroup(buffer.toString('utf8', 0, end));
    if (count < length) return undefined;
  }
  return undefined;
}

/** A group that no job id tells from others of its client and command is known by the second in which it came. */
function hashPacked({ group: { jobId, at }, facts: { clientId, command } }: Packed): number {
  const isNamed = jobId !== NOT_APPLICABLE;
  return hashText(isNamed ? encodeField(jobId) : String(Math.floor(Date.parse(at) / 1000)), clientId, command);
}

/** Whole seconds are in the log, of when a request was done and of how long it took: one of three is the second in which it came. */
function hashesOf({ jobId, clientId, command, at, put }: Job): number[] {
  if (jobId !== undefined && jobId !== NOT_APPLICABLE) return [hashText(jobId, clientId, command)];
  const second = Math.floor(at.getTime() / 1000) - (put?.seconds ?? 0);
  return [second, second - 1, second + 1].map((one) => hashText(String(one), clientId, command));
}

function isOf({ group, facts }: Packed, { jobId, clientId, command }: Job): boolean {
  const isSame = facts.clientId === clientId && facts.command === command;
  return isSame && encodeField(group.jobId) === (jobId ?? NOT_APPLICABLE);
}

/** 53 bits of a text, so that a key takes a few bytes: whoever finds one looks whether it is the one. FNV-1a, twice. */
function hashText(...parts: (string | undefined)[]): number {
  const text = parts.join(' ');
  let [low, high] = [0x811c9dc5, 0x01000193];
  for (let at = 0; at < text.length; at++) {
    low = Math.imul(low ^ text.charCodeAt(at), 0x01000193);
    high = Math.imul(high ^ text.charCodeAt(at), 0x5bd1e995);
  }
  return (low >>> 0) + ((high >>> 11) & 0x1fffff) * 2 ** 32;
}
