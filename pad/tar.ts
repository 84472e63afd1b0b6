// The tar of a directory in a PaD file. Owners and times are left out, so that the same directory
// always gives the same bytes.
import { formatTarHead, TAR_END, tarPadding } from '../archive/tar.ts';
import { Failure } from '../cli/failure.ts';
import { type Entry, readPieces } from './files.ts';

/**
 * The largest number in eleven octal digits: larger sizes are written in a form that not every tar
 * reads.
 */
const LARGEST = 0o77777777777;

export function* tarPieces(entries: readonly Entry[]): Generator<Buffer> {
  for (const entry of entries) yield* entryPieces(entry);
  yield TAR_END;
}

function* entryPieces(entry: Entry): Generator<Buffer> {
  const { kind, path, mode } = entry;
  const name = kind === 'folder' ? `${entry.name}/` : entry.name;
  const size = kind === 'file' ? entry.size : 0;
  if (size > LARGEST) throw new Failure('failed', `${path} is too large for a tar`);
  yield formatTarHead({ name, kind, mode, size, ...(kind === 'link' && { target: entry.target }) });
  if (kind !== 'file') return;
  yield* readPieces(path, size);
  yield tarPadding(size);
}
