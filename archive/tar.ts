// The tar format that every tar program of the last thirty years reads: ustar headers, GNU's entry
// for long names, base 256 for sizes over 8 GiB.

/** The size of a header, and the unit of padding. */
export const BLOCK = 512;
const NAME_BYTES = 100;
const LARGEST_OCTAL = 0o77777777777;
const TYPES = { file: '0', link: '2', folder: '5', longName: 'L', longLink: 'K' };

/** A file, directory or link in a tar. */
export interface TarEntry {
  name: string;
  /** The size of a file in bytes. */
  size?: number;
  mtimeSeconds?: number;
  mode?: number;
  kind?: 'file' | 'link' | 'folder';
  /** The target of a link. */
  target?: string;
}

/** The header before the bytes of a file, or of a directory or link. Names may have any length. */
export function formatTarHead(entry: TarEntry): Buffer {
  const { size = 0, mtimeSeconds = 0, mode = 0o644, kind = 'file' } = entry;
  const [name, target] = [Buffer.from(entry.name), Buffer.from(entry.target ?? '')];
  const head = header({ name, target, size, mtimeSeconds, mode, type: TYPES[kind] });
  if (name.length <= NAME_BYTES && target.length <= NAME_BYTES) return head;
  const long = [
    ...(name.length > NAME_BYTES ? longText(TYPES.longName, name) : []),
    ...(target.length > NAME_BYTES ? longText(TYPES.longLink, target) : []),
  ];
  return Buffer.concat([...long, head]);
}

/** GNU's entry before a file whose name or target is too long for the header. */
function longText(type: string, text: Buffer): Buffer[] {
  const content = Buffer.concat([text, Buffer.alloc(1)]);
  const facts = { name: Buffer.from('././@LongLink'), target: Buffer.alloc(0), size: content.length, mtimeSeconds: 0 };
  return [header({ ...facts, mode: 0o644, type }), content, tarPadding(content.length)];
}

/** The number of bytes that pad the last block of a file. */
export function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** The padding after a file. */
export function tarPadding(size: number): Buffer {
  return TAR_END.subarray(0, paddingOf(size));
}

/** The end of a tar. */
export const TAR_END = Buffer.alloc(2 * BLOCK);

interface Header {
  name: Buffer;
  target: Buffer;
  size: number;
  mtimeSeconds: number;
  mode: number;
  type: string;
}

/** The owner and the group of every file. */
const NOBODY = octal(0, 7);
const TARGET_AT = 157;
const MAGIC_AT = TARGET_AT + NAME_BYTES;
const BLANK = Buffer.alloc(BLOCK);
BLANK.write('ustar\x0000', MAGIC_AT, 'latin1');
const MAGIC_SUM = sumOf(BLANK, MAGIC_AT, BLOCK);

function header({ name, target, size, mtimeSeconds, mode, type }: Header): Buffer {
  // The buffer is from Node's pool, because a separate allocation takes longer than everything
  // below.
  const block = Buffer.allocUnsafe(BLOCK);
  BLANK.copy(block);
  name.copy(block, 0, 0, NAME_BYTES);
  const [isLarge, mtime] = [size > LARGEST_OCTAL, Math.max(0, Math.min(LARGEST_OCTAL, Math.floor(mtimeSeconds)))];
  const length = isLarge ? '\0'.repeat(12) : octal(size, 11);
  // The checksum field counts as spaces in the checksum.
  const numbers = `${octal(mode, 7)}${NOBODY}${NOBODY}${length}${octal(mtime, 11)}`;
  block.write(`${numbers}        ${type}`, NAME_BYTES, 'latin1');
  if (isLarge) {
    block.writeUInt8(0x80, 124);
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  target.copy(block, TARGET_AT, 0, NAME_BYTES);
  // The fields after the target are the same in every header, and an empty target is only zeros.
  const sum = MAGIC_SUM + sumOf(block, 0, target.length === 0 ? TARGET_AT : MAGIC_AT);
  block.write(`${octal(sum, 6)} `, 148, 'latin1');
  return block;
}

function sumOf(bytes: Buffer, start: number, end: number): number {
  let sum = 0;
  for (let at = start; at < end; at++) sum += bytes[at] ?? 0;
  return sum;
}

function octal(value: number, digits: number): string {
  return `${value.toString(8).padStart(digits, '0')}\0`;
}
