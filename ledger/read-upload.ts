// What one upload is, read from its files: whose it is, when it was announced, and how its run ended.
import type { Stats } from 'node:fs';
import { EXTENSIONS, type Extension, type Group, parseReady, reach, STREAMS, statGroupFile } from 'webjob-locker';
import { encodeField, isClientId, isFileName } from 'webjob-protocol';
import { describeEnding, ENDING_FIELDS, type Ending, fieldPattern, parseRecordFields } from './ending.ts';
import { readHead, readHeadAndSize, readHeadAndStats } from './head.ts';
import { LOCKER, type Upload } from './join.ts';
import type { NameFacts, ParseName } from './names.ts';

/** An upload in the locker with what tells that it is still the same. */
export type ReadUpload = Upload & {
  stamp: string;
  /** Of all of its files. */
  bytes: number;
};

/** What was read of the streams of an upload for another purpose. */
export interface ReadStreams {
  /** Of the streams that are there. */
  sizes: ReadonlyMap<Extension, number>;
  /** The run record, one character a byte; undefined when it is not there, or was not read to its end. */
  record: string | undefined;
}

/**
 * Undefined when nothing of it is there (any more).
 *
 * @param streams spares reading them again
 */
export function readUpload(
  locker: string,
  name: string,
  parseName: ParseName,
  known?: Group,
  streams?: ReadStreams,
): ReadUpload | undefined {
  const sizes = new Map<Extension, number>(streams?.sizes);
  const record = readRecord(locker, name, known, streams);
  if (record) sizes.set('env', record.size);
  for (const extension of known?.has ?? EXTENSIONS) {
    if (extension === 'rdy' || extension === 'env' || (streams && extension !== 'lck')) continue;
    const found = statGroupFile(locker, name, extension);
    if (found) sizes.set(extension, found.size);
  }
  // Last, as it is the first to go: an upload whose files go meanwhile is not taken for a whole one.
  const ready = (known?.has ?? ALL).has('rdy') ? readHeadAndStats(reach(locker, `${name}.rdy`)) : undefined;
  if (ready) sizes.set('rdy', ready.stats.size);
  const has = new Set(sizes.keys());
  if (has.size === 0 || has.size < (known?.has.size ?? 0)) return known && readUpload(locker, name, parseName);
  const text = ready ? ready.text : readHead(reach(locker, `${name}.lck`));
  const jobId = text === undefined ? undefined : parseJobId(text);
  return {
    ...{ name, place: LOCKER, has: unpackFiles(packFiles(has)), jobId },
    ...(ready ? { at: ready.stats.mtimeMs, stamp: stampReady(ready.stats) } : stampBroken(locker, { name, has })),
    ...whoseIs(parseName(name, jobId), () => record?.fields),
    bytes: [...sizes.values()].reduce((sum, size) => sum + size, 0),
    ending: ready ? record && describeEnding(record.fields) : undefined,
  };
}

const ALL: ReadonlySet<Extension> = new Set(EXTENSIONS);

/** A complete upload is what it was while its .rdy is: whoever replaces an upload replaces that, too. */
export function stampReady({ ino, mtimeMs, size }: Pick<Stats, 'ino' | 'mtimeMs' | 'size'>): string {
  return `${ino}:${mtimeMs}:${size}`;
}

/** Without .rdy: when it last changed, and what tells that it did. */
export function stampBroken(locker: string, { name, has }: Group): { at: number; stamp: string } {
  const found = EXTENSIONS.map((extension) =>
    has.has(extension) ? statGroupFile(locker, name, extension) : undefined,
  );
  const marks = found.map((stats) => (stats ? stampReady(stats) : ''));
  return { at: Math.max(0, ...found.map((stats) => stats?.mtimeMs ?? 0)), stamp: marks.join(' ') };
}

/** By its name, or where that is of another form, by what its run record claims. */
export function whoseIs(
  facts: NameFacts | undefined,
  readRecord: () => ReadonlyMap<string, string> | undefined,
): Pick<Upload, 'clientId' | 'command' | 'isNamed'> {
  const { clientId, command } = facts ?? {};
  if (clientId !== undefined && command !== undefined) return { clientId, command, isNamed: true };
  const record = readRecord();
  const [claimedId = '', claimedName = ''] = ['ClientId', 'GetRequest'].map((field) => record?.get(field));
  return {
    clientId: clientId ?? (isClientId(claimedId) ? claimedId : undefined),
    command: command ?? (isFileName(claimedName) ? claimedName : undefined),
    isNamed: false,
  };
}

/** What is read of a run record here. */
const FACTS = fieldPattern(`${ENDING_FIELDS.join('|')}|ClientId|GetRequest`);
/** A longer file is no run record, whatever it begins with. */
const MAX_RECORD_BYTES = 1024 * 1024;

/** The run record and its size; undefined when it is not there. */
function readRecord(
  locker: string,
  name: string,
  known: Group | undefined,
  streams: ReadStreams | undefined,
): { fields: Map<string, string>; size: number } | undefined {
  if (!(known?.has ?? ALL).has('env')) return undefined;
  const text = streams?.record;
  const found =
    text === undefined
      ? readHeadAndSize(reach(locker, `${name}.env`), MAX_RECORD_BYTES)
      : { text, size: streams?.sizes.get('env') ?? text.length };
  return (
    found && {
      fields: parseRecordFields(found.text.length > MAX_RECORD_BYTES ? '' : found.text, FACTS),
      size: found.size,
    }
  );
}

/** What a .rdy file says, as the log writes it. */
export function parseJobId(text: string): string | undefined {
  try {
    return encodeField(parseReady(text));
  } catch {
    return undefined;
  }
}

/** The files of an upload, by the bit that stands for each. */
export const FILE_BITS: readonly Extension[] = [...STREAMS, 'rdy', 'lck'];
const SETS = new Map<number, ReadonlySet<Extension>>();

/** Which files there are, as a number: `rdy` is 8. */
export function packFiles(has: ReadonlySet<Extension>): number {
  return FILE_BITS.reduce((sum, extension, bit) => sum | (has.has(extension) ? 1 << bit : 0), 0);
}

export function unpackFiles(bits: number): ReadonlySet<Extension> {
  const known = SETS.get(bits) ?? new Set(FILE_BITS.filter((_, bit) => bits & (1 << bit)));
  SETS.set(bits, known);
  return known;
}

/** `Ending` as it is kept, and back. */
export type StoredEnding = readonly [number | null, number | null, number | null, string | null, number | null];

export function packEnding(ending: Ending | undefined): StoredEnding {
  if (!ending) return [null, null, null, null, null];
  const { exitCode, signal, isGood, outerId, clockSkew } = ending;
  return [exitCode ?? null, signal ?? null, Number(isGood), outerId ?? null, clockSkew ?? null];
}

export function unpackEnding([exitCode, signal, isGood, outerId, clockSkew]: StoredEnding): Ending | undefined {
  if (isGood === null) return undefined;
  return {
    ...{ isGood: isGood === 1, exitCode: exitCode ?? undefined, signal: signal ?? undefined },
    ...{ outerId: outerId ?? undefined, clockSkew: clockSkew ?? undefined },
  };
}
