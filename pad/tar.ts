// A tar that every tar of the last thirty years unpacks: ustar, and GNU's entry for names of more than 100 bytes. Owners and times
// are left out, so that the same folder always makes the same bytes.

import { Failure } from '../cli/failure.ts';
import { type Entry, readPieces } from './files.ts';

const BLOCK = 512;
const NAME_BYTES = 100;
const LARGEST = 0o77777777777;
const TYPES = { file: '0', link: '2', folder: '5', longName: 'L', longLink: 'K' };

export function* tarPieces(entries: readonly Entry[]): Generator<Buffer> {
  for (const entry of entries) yield* entryPieces(entry);
  yield Buffer.alloc(2 * BLOCK);
}

function* entryPieces(entry: Entry): Generator<Buffer> {
  const name = Buffer.from(entry.kind === 'folder' ? `${entry.name}/` : entry.name);
  const target = Buffer.from(entry.kind === 'link' ? entry.target : '');
  const size = entry.kind === 'file' ? entry.size : 0;
  if (size > LARGEST) throw new Failure('failed', `${entry.path} is too large for a tar`);
  if (name.length > NAME_BYTES) yield* longText(TYPES.longName, name);
  if (target.length > NAME_BYTES) yield* longText(TYPES.longLink, target);
  yield header({ name, target, size, mode: entry.mode, type: TYPES[entry.kind] });
  if (entry.kind === 'file') {
    yield* readPieces(entry.path, size);
    yield padding(size);
  }
}

function* longText(type: string, text: Buffer): Generator<Buffer> {
  const content = Buffer.concat([text, Buffer.alloc(1)]);
  const name = Buffer.from('././@LongLink');
  yield header({ name, target: Buffer.alloc(0), size: content.length, mode: 0o644, type });
  yield content;
  yield padding(content.length);
}

function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

interface Header {
  name: Buffer;
  target: Buffer;
  size: number;
  mode: number;
  type: string;
}

function header({ name, target, size, mode, type }: Header): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  name.copy(block, 0, 0, NAME_BYTES);
  block.write(octal(mode, 7), 100);
  block.write(octal(0, 7), 108);
  block.write(octal(0, 7), 116);
  block.write(octal(size, 11), 124);
  block.write(octal(0, 11), 136);
  // The checksum counts itself as blanks.
  block.write('        ', 148);
  block.write(type, 156);
  target.copy(block, 157, 0, NAME_BYTES);
  block.write('ustar\x0000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)} `, 148);
  return block;
}
