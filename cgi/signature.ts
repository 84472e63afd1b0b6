// The signature and the manifest of a command: a line in one file beside it, and a signed note in
// another. They are made elsewhere; the server only passes them on, and the client verifies them.
import { closeSync } from 'node:fs';
import { readSome } from 'node-cgi-compat';
import { MANIFEST_SUFFIX, MAX_MANIFEST_BYTES } from 'webjob-protocol';
import { openContained, UnusableFile } from './contained.ts';
import { logProblem } from './log.ts';

/** The longest header value that a client accepts (docs/protocol.md, section 2). */
const MAX_LENGTH = 255;

/**
 * The signature of the command `relativePath` below `root`. Undefined, with a message in the error
 * log, for a file without a valid one.
 */
export function findSignature(root: string, relativePath: string): string | undefined {
  return find('signature', root, relativePath, readSignature);
}

/**
 * The manifest of the command `relativePath` below `root`, in base64. Undefined, with a message in
 * the error log, for a file without a valid one.
 */
export function findManifest(root: string, relativePath: string): string | undefined {
  return find('manifest', root, relativePath + MANIFEST_SUFFIX, readManifest);
}

function find(what: string, root: string, relativePath: string, read: (fd: number) => string): string | undefined {
  try {
    const file = openContained(root, relativePath);
    return file && read(file.fd);
  } catch (error) {
    if (!(error instanceof UnusableFile)) throw error;
    logProblem(`${what} ${relativePath}: ${error.message}`);
    return undefined;
  }
}

/** Reads the signature from an open file and closes it. Throws UnusableFile when there is none. */
export function readSignature(fd: number): string {
  const buffer = Buffer.alloc(MAX_LENGTH + 3);
  const text = buffer.toString('latin1', 0, readFull(fd, buffer)).replace(/\r?\n$/, '');
  // Anything but a single printable line could become a second header.
  if (text.length <= MAX_LENGTH && /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text)) return text;
  throw new UnusableFile(`not one line of 1 to ${MAX_LENGTH} printable characters`);
}

/**
 * Reads an open file and closes it; returns its bytes in base64, so that nothing can become a
 * second header. Throws UnusableFile.
 */
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
