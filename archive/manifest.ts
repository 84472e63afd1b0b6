// The manifest beside an archive: one JSON value on each line. The first identifies the archive,
// then there is one line for each upload with its offset and the SHA-256 of each of its files, and
// a last one with their number and the SHA-256 of the archive. Without the last line the manifest
// was cut off.
import { closeSync, constants, openSync } from 'node:fs';
import { readLines } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';

/**
 * The files of an upload in the order in which they are stored: the file that is read most often
 * comes first, and `.rdy` last.
 */
export const PACKED_EXTENSIONS = ['env', 'err', 'out', 'rdy'] as const;

export type PackedExtension = (typeof PACKED_EXTENSIONS)[number];

/** How a run ended. */
export interface Ending {
  /** Whether the program ran and exited with 0, and nothing else went wrong. */
  isGood: boolean;
  exitCode: number | undefined;
  signal: number | undefined;
  /** Seconds by which the client's clock was ahead of the server's, if more than a minute. */
  clockSkew: number | undefined;
  /**
   * OuterJid in the escaped form of the log: the job whose program started this one. Archives of
   * earlier versions do not have it.
   */
  outerId?: string | undefined;
}

export interface PackedFile {
  bytes: number;
  sha256: string;
  /** Milliseconds. */
  mtime: number;
}

export interface PackedGroup {
  name: string;
  jobId: string;
  /** When the upload was announced, in ISO 8601. */
  at: string;
  clientId: string | undefined;
  command: string | undefined;
  /** Every client id in the log or the run record. */
  clients: readonly string[];
  /** The offset and the length of the upload's gzip member in the archive. */
  offset: number;
  length: number;
  files: Record<PackedExtension, PackedFile>;
  /** How the run ended, from the run record. Archives of earlier versions do not have it. */
  ending?: Ending | undefined;
}

export interface ManifestHead {
  format: 1;
  day: string;
  archive: string;
}

export interface ManifestEnd {
  groups: number;
  archiveBytes: number;
  archiveSha256: string;
}

const SHA256 = /^[0-9a-f]{64}$/;

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/**
 * Yields every upload of a manifest, and returns its end. Throws Failure `failed` when it is
 * incomplete.
 */
export function* readManifest(path: string): Generator<PackedGroup, ManifestEnd> {
  let count = 0;
  let end: ManifestEnd | undefined;
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY);
    for (const { text } of readLines(fd, 0)) {
      const value = parseLine(text);
      if (count++ === 0) {
        if (value.format !== 1) throw new SyntaxError('it has another format');
      } else if (value.archiveSha256 !== undefined) end = checkEnd(value, count - 2);
      else yield checkGroup(value);
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Failure('failed', `${path}: line ${count}: ${code ?? message}`, undefined, { cause: error });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  if (!end) throw new Failure('failed', `${path}: the manifest is truncated`);
  return end;
}

/**
 * Yields every upload in an open manifest, even one that is cut off; `onDamage` is called with each
 * malformed line.
 */
export function* readGroups(fd: number, onDamage: (error: SyntaxError) => void): Generator<PackedGroup> {
  for (const { text, from } of readLines(fd, 0)) {
    if (from === 0) continue;
    let value: ReturnType<typeof parseLine>;
    try {
      value = parseLine(text);
      if (value.archiveSha256 === undefined) checkGroup(value);
    } catch (error) {
      onDamage(error as SyntaxError);
      continue;
    }
    if (value.archiveSha256 === undefined) yield value;
  }
}

/**
 * Parses a line with one character for each byte. The caller determines which of the three kinds of
 * line it is.
 */
function parseLine(line: string): ManifestHead & PackedGroup & ManifestEnd {
  const value = JSON.parse(Buffer.from(line, 'latin1').toString());
  if (typeof value !== 'object' || value === null) throw new SyntaxError('not a line of a manifest');
  return value;
}

function checkEnd(value: ManifestEnd, groups: number): ManifestEnd {
  const { archiveBytes, archiveSha256 } = value;
  if (value.groups !== groups || !isCount(archiveBytes) || !SHA256.test(archiveSha256))
    throw new SyntaxError('its last line does not match the rest');
  return { groups, archiveBytes, archiveSha256 };
}

/** A manifest can come from anywhere, so names in it must not lead out of the locker. */
function checkGroup(value: PackedGroup): PackedGroup {
  const { name, jobId, at, clients, offset, length, files, ending } = value;
  const isText = [name, jobId, at].every((field) => typeof field === 'string') && !Number.isNaN(Date.parse(at));
  const isInside = isText && name.split('/').every((part) => !['', '.', '..'].includes(part)) && !name.includes('\0');
  const isPlaced = isCount(offset) && isCount(length) && isCount(offset + length) && Array.isArray(clients);
  const areFiles = PACKED_EXTENSIONS.every((extension) => {
    const file = files?.[extension];
    return isCount(file?.bytes) && SHA256.test(file.sha256) && Number.isFinite(file.mtime);
  });
  const isEnding =
    ending === undefined ||
    (typeof ending.isGood === 'boolean' &&
      [ending.exitCode, ending.signal].every((number) => number === undefined || isCount(number)) &&
      (ending.clockSkew === undefined || Number.isSafeInteger(ending.clockSkew)) &&
      (ending.outerId === undefined || typeof ending.outerId === 'string'));
  if (!isInside || !isPlaced || !areFiles || !isEnding) throw new SyntaxError('not an upload of a manifest');
  return value;
}
