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

const TARGET_AT = 157;
const MAGIC_AT = TARGET_AT + NAME_BYTES;
/** Where the fields after the name begin, and the digits of each. */
const FIELDS = { mode: [100, 7], size: [124, 11], mtime: [136, 11], sum: [148, 6] } as const;
const TYPE_AT = 156;
const ZERO = 0x30;

/** A header in which owner and group are 0; the checksum field counts as spaces in the checksum. */
const BLANK = Buffer.alloc(BLOCK);
BLANK.write(`${'0000000\0'.repeat(3)}${'00000000000\0'.repeat(2)}        `, NAME_BYTES, 'latin1');
BLANK.write('ustar\x0000', MAGIC_AT, 'latin1');
const BLANK_SUM = sumOf(BLANK, 0, BLOCK);

function header({ name, target, size, mtimeSeconds, mode, type }: Header): Buffer {
  // The buffer is from Node's pool, because a separate allocation takes longer than everything
  // below.
  const block = Buffer.allocUnsafe(BLOCK);
  BLANK.copy(block);
  name.copy(block, 0, 0, NAME_BYTES);
  target.copy(block, TARGET_AT, 0, NAME_BYTES);
  block[TYPE_AT] = type.charCodeAt(0);
  let sum = BLANK_SUM + type.charCodeAt(0);
  sum += sumOf(block, 0, Math.min(name.length, NAME_BYTES));
  sum += sumOf(block, TARGET_AT, TARGET_AT + Math.min(target.length, NAME_BYTES));
  sum += putOctal(block, FIELDS.mode, mode);
  sum += putOctal(block, FIELDS.mtime, Math.max(0, Math.min(LARGEST_OCTAL, Math.floor(mtimeSeconds))));
  sum += size > LARGEST_OCTAL ? putLarge(block, size) : putOctal(block, FIELDS.size, size);
  putOctal(block, FIELDS.sum, sum);
  block[FIELDS.sum[0] + FIELDS.sum[1]] = 0;
  return block;
}

/** Returns by how much the sum of the bytes grows. */
function putOctal(block: Buffer, [at, digits]: readonly [number, number], value: number): number {
  let [sum, rest] = [0, value];
  // Without bit operations, which are limited to 32 bits.
  for (let place = at + digits - 1; place >= at; place--) {
    const above = Math.floor(rest / 8);
    const digit = rest - 8 * above;
    block[place] = ZERO + digit;
    sum += digit;
    rest = above;
  }
  return sum;
}

/** Writes a size in base 256, which a first byte of 0x80 announces. */
function putLarge(block: Buffer, size: number): number {
  const [at, digits] = FIELDS.size;
  block.fill(0, at, at + digits + 1);
  block.writeUInt8(0x80, at);
  block.writeBigUInt64BE(BigInt(size), at + 4);
  return sumOf(block, at, at + digits + 1) - digits * ZERO;
}

function sumOf(bytes: Buffer, start: number, end: number): number {
  let sum = 0;
  for (let at = start; at < end; at++) sum += bytes[at] ?? 0;
  return sum;
}
