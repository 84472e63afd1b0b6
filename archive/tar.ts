// The tar inside a pack: ustar headers that every tar unpacks, GNU's entry for long names, base 256 for sizes over 8 GiB.

export const BLOCK = 512;
const NAME_BYTES = 100;
const LARGEST_OCTAL = 0o77777777777;

/** What stands before the bytes of a file. */
export function formatTarHead(name: string, size: number, mtimeSeconds: number): Buffer {
  const bytes = Buffer.from(name);
  const head = header(bytes, size, mtimeSeconds, '0');
  if (bytes.length <= NAME_BYTES) return head;
  const content = Buffer.concat([bytes, Buffer.alloc(1)]);
  const long = header(Buffer.from('././@LongLink'), content.length, 0, 'L');
  return Buffer.concat([long, content, Buffer.alloc(paddingOf(content.length)), head]);
}

/** Bytes that fill the last block of a file. */
export function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** What ends a tar. */
export const TAR_END = Buffer.alloc(2 * BLOCK);

function header(name: Buffer, size: number, mtimeSeconds: number, type: string): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  name.copy(block, 0, 0, NAME_BYTES);
  block.write(octal(0o644, 7), 100);
  block.write(octal(0, 7), 108);
  block.write(octal(0, 7), 116);
  if (size <= LARGEST_OCTAL) block.write(octal(size, 11), 124);
  else {
    block.writeUInt8(0x80, 124);
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  block.write(octal(Math.max(0, Math.min(LARGEST_OCTAL, Math.floor(mtimeSeconds))), 11), 136);
  // The checksum counts itself as blanks.
  block.write('        ', 148);
  block.write(type, 156);
  block.write('ustar\x0000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)} `, 148);
  return block;
}
