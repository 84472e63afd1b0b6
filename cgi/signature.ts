// What travels with a command: its signature, one line in a file beside it, and its manifest, a signed note in another. Both are made
// elsewhere. The server carries them, the client checks them.
import { closeSync } from 'node:fs';
import { readSome } from 'node-cgi-compat';
import { MANIFEST_SUFFIX, MAX_MANIFEST_BYTES } from 'webjob-protocol';
import { openContained, UnusableFile } from './contained.ts';
import { complain } from './log.ts';

/** What a client takes as the value of a header (docs/protocol.md, section 2). */
const MAX_LENGTH = 255;

/** The signature in `relativePath` below `root`; undefined, with a word in the error log, for a file that holds none. */
export function findSignature(root: string, relativePath: string): string | undefined {
  return find('signature', root, relativePath, readSignature);
}

/** The manifest of the command in `relativePath` below `root`, in base64; undefined, with a word in the error log, for a file that holds none. */
export function findManifest(root: string, relativePath: string): string | undefined {
  return find('manifest', root, relativePath + MANIFEST_SUFFIX, readManifest);
}

function find(what: string, root: string, relativePath: string, read: (fd: number) => string): string | undefined {
  try {
    const file = openContained(root, relativePath);
    return file && read(file.fd);
  } catch (error) {
    if (!(error instanceof UnusableFile)) throw error;
    complain(`${what} ${relativePath}: ${error.message}`);
    return undefined;
  }
}

/** The signature in an open file, which is closed. Throws UnusableFile for one that holds none. */
export function readSignature(fd: number): string {
  const buffer = Buffer.alloc(MAX_LENGTH + 3);
  const text = buffer.toString('latin1', 0, readFull(fd, buffer)).replace(/\r?\n$/, '');
  // What is no single printable line could become a second header.
  if (text.length <= MAX_LENGTH && /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text)) return text;
  throw new UnusableFile(`not one line of 1 to ${MAX_LENGTH} printable characters`);
}

/** The bytes of an open file, which is closed, in base64, in which nothing can become a second header. Throws UnusableFile. */
export function readManifest(fd: number): string {
  const buffer = Buffer.alloc(MAX_MANIFEST_BYTES + 1);
  const length = readFull(fd, buffer);
  if (length > 0 && length <= MAX_MANIFEST_BYTES) return buffer.toString('base64', 0, length);
  throw new UnusableFile(`not 1 to ${MAX_MANIFEST_BYTES} bytes`);
}

function readFull(fd: number, buffer: Buffer): number {
  try {
    let length = 0;
    for (let count = 1; count > 0; length += count) count = readSome(fd, buffer.subarray(length));
    return length;
  } finally {
    closeSync(fd);
  }
}
