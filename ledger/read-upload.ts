// Reads an upload from its files: its client and command, when it was announced, and how its run
// ended.
import type { Stats } from 'node:fs';
import { EXTENSIONS, type Extension, type Group, parseReady, reach, STREAMS, statGroupFile } from 'webjob-locker';
import { encodeField, isClientId, isFileName } from 'webjob-protocol';
import { describeEnding, ENDING_FIELDS, type Ending, fieldPattern, parseRecordFields } from './ending.ts';
import { readHead, readHeadAndSize, readHeadAndStats } from './head.ts';
import { LOCKER, type Upload } from './join.ts';
import type { NameFacts, ParseName } from './names.ts';

/** An upload in the locker, with a stamp that differs once the upload has changed. */
export type ReadUpload = Upload & {
  stamp: string;
  /** The size of all files of the upload. */
  bytes: number;
};

/** The parts of an upload that were already read for another purpose. */
export interface ReadStreams {
  /** The sizes of the streams that exist. */
  sizes: ReadonlyMap<Extension, number>;
  /**
   * The run record, one character for each byte; undefined when it does not exist or was not read
   * to its end.
   */
  record: string | undefined;
}

/**
 * Reads an upload; undefined when none of its files exists.
 *
 * @param streams streams that were already read and need not be read again
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
  // The .rdy is read last, because it is removed first: an upload that is being removed is then not
  // mistaken for a complete one.
  const ready = (known?.has ?? ALL).has('rdy') ? readHeadAndStats(reach(locker, `${name}.rdy`)) : undefined;
  if (ready) sizes.set('rdy', ready.stats.size);
  const has = new Set(sizes.keys());
  if (has.size === 0 || has.size < (known?.has.size ?? 0)) return known && readUpload(locker, name, parseName);
  const text = ready ? ready.text : readHead(reach(locker, `${name}.lck`));
  const jobId = text === undefined ? undefined : parseJobId(text);
  return {
    name,
    place: LOCKER,
    has: unpackFiles(packFiles(has)),
    jobId,
    ...(ready ? { at: ready.stats.mtimeMs, stamp: stampReady(ready.stats) } : stampBroken(locker, { name, has })),
    ...whoseIs(parseName(name, jobId), () => record?.fields),
    bytes: [...sizes.values()].reduce((sum, size) => sum + size, 0),
    ending: ready ? record && describeEnding(record.fields) : undefined,
  };
}

const ALL: ReadonlySet<Extension> = new Set(EXTENSIONS);

/**
 * The stamp of a complete upload. The state of the .rdy is enough, because every replacement of an
 * upload replaces the .rdy too.
 */
export function stampReady({ ino, mtimeMs, size }: Pick<Stats, 'ino' | 'mtimeMs' | 'size'>): string {
  return `${ino}:${mtimeMs}:${size}`;
}

/** When an upload without a .rdy last changed, and its stamp. */
export function stampBroken(locker: string, { name, has }: Group): { at: number; stamp: string } {
  const found = EXTENSIONS.map((extension) =>
    has.has(extension) ? statGroupFile(locker, name, extension) : undefined,
  );
  const marks = found.map((stats) => (stats ? stampReady(stats) : ''));
  return { at: Math.max(0, ...found.map((stats) => stats?.mtimeMs ?? 0)), stamp: marks.join(' ') };
}

/**
 * The client and command of an upload, from its name or, if that has another form, from the claims
 * of its run record.
 */
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

/** The fields of the run record that describe the ending, the client and the command. */
const FACTS = fieldPattern(`${ENDING_FIELDS.join('|')}|ClientId|GetRequest`);
/** The maximum size of a run record; a longer file is not a run record, whatever it begins with. */
const MAX_RECORD_BYTES = 1024 * 1024;

/** The run record and its size; undefined when it does not exist. */
function readRecord(
  locker: string,
  name: string,
  known: Group | undefined,
  streams: ReadStreams | undefined,
): { fields: Map<string, string>; size: number } | undefined {
  if (!(known?.has ?? ALL).has('env')) return undefined;
  const text = streams?.record;
  const found =
    text === undefined ? readHeadAndSize(reach(locker, `${name}.env`), MAX_RECORD_BYTES) : { text, size: text.length };
  return (
    found && {
      fields: parseRecordFields(found.text.length > MAX_RECORD_BYTES ? '' : found.text, FACTS),
      size: found.size,
    }
  );
}

/** The job id in a .rdy file, in the escaped form of the log. */
export function parseJobId(text: string): string | undefined {
  try {
    return encodeField(parseReady(text));
  } catch {
    return undefined;
  }
}

/** The files of an upload; the bit of each is its index. */
export const FILE_BITS: readonly Extension[] = [...STREAMS, 'rdy', 'lck'];
const SETS = new Map<number, ReadonlySet<Extension>>();

/** The files that exist, as a bit set: `rdy` is 8. */
export function packFiles(has: ReadonlySet<Extension>): number {
  return FILE_BITS.reduce((sum, extension, bit) => sum | (has.has(extension) ? 1 << bit : 0), 0);
}

export function unpackFiles(bits: number): ReadonlySet<Extension> {
  const known = SETS.get(bits) ?? new Set(FILE_BITS.filter((_, bit) => bits & (1 << bit)));
  SETS.set(bits, known);
  return known;
}

/** An `Ending` in its stored form. */
export type StoredEnding = readonly [number | null, number | null, number | null, string | null, number | null];

export function packEnding(ending: Ending | undefined): StoredEnding {
  if (!ending) return [null, null, null, null, null];
  const { exitCode, signal, isGood, outerId, clockSkew } = ending;
  return [exitCode ?? null, signal ?? null, Number(isGood), outerId ?? null, clockSkew ?? null];
}

export function unpackEnding([exitCode, signal, isGood, outerId, clockSkew]: StoredEnding): Ending | undefined {
  if (isGood === null) return undefined;
  return {
    isGood: isGood === 1,
    exitCode: exitCode ?? undefined,
    signal: signal ?? undefined,
    outerId: outerId ?? undefined,
    clockSkew: clockSkew ?? undefined,
  };
}
