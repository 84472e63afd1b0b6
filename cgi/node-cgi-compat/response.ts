// The answer of a CGI script in two forms: with a header that the server parses (RFC 3875, section
// 6.2) for ordinary scripts and FastCGI, or as a complete HTTP response (section 5) for nph
// scripts, whose bytes the server passes on verbatim.
import { closeSync, readSync } from 'node:fs';
import { BODY_CHUNK_BYTES } from './body.ts';
import { writeAll } from './descriptors.ts';

/** The answer that a handler returns. */
export interface CgiResponse {
  status: number;
  reason: string;
  headers: (readonly [name: string, value: string])[];
  /** Content-Length in bytes. */
  contentLength: number;
  /**
   * The bytes, or an open file with at least `contentLength` bytes, which is closed once they are
   * sent.
   */
  content?: Uint8Array | { fd: number } | undefined;
  /** Work to be done after the answer was sent. Must not throw. */
  afterwards?: (() => void) | undefined;
  /** Called when the request has ended, whatever happened to the answer. Must not throw. */
  atEnd?: (() => void) | undefined;
  /**
   * How long a script may read the rest of the body; after that it answers without the rest and is
   * killed. Undefined means no limit.
   */
  drainLimitMs?: number | undefined;
}

/**
 * The form of the header: `nph` for a script that answers the client itself, `parsed` for one whose
 * header the server reads.
 */
export type HeaderStyle = 'nph' | 'parsed';

/**
 * Formats the header with its blank line. Throws RangeError for a reason, name or value that would
 * break out of its line: a script that lets a client's bytes through must fail rather than send a
 * header that the client wrote.
 */
export function formatHead(response: CgiResponse, style: HeaderStyle): string {
  const { status, reason } = response;
  const first = style === 'nph' ? `HTTP/1.1 ${status} ${reason}` : `Status: ${status} ${reason}`;
  const lines = [
    first,
    ...response.headers.map(([name, value]) => `${name}: ${value}`),
    `Content-Length: ${response.contentLength}`,
    // The connection ends with the answer of an nph script, and the client must be told (RFC 9112,
    // section 9.3).
    ...(style === 'nph' ? ['Connection: close'] : []),
  ];
  if (!lines.every((line) => /^[\t\x20-\x7e]*$/.test(line)))
    throw new RangeError('a response header contains a control or non-ASCII character');
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/**
 * Writes header and content to `fd` and closes the content's file. A peer that left (EPIPE) is not
 * an error.
 */
export function writeResponse(fd: number, response: CgiResponse, style: HeaderStyle): void {
  const { content, contentLength } = response;
  try {
    writeAll(fd, Buffer.from(formatHead(response, style), 'latin1'));
    if (content instanceof Uint8Array) writeAll(fd, content.subarray(0, contentLength));
    else if (content) copyFile(content.fd, fd, contentLength);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EPIPE' && code !== 'ECONNRESET') throw error;
  } finally {
    if (content && 'fd' in content) closeSync(content.fd);
  }
}

/**
 * Copies exactly `length` bytes, or fewer when the file shrank meanwhile: the client then sees a
 * short body.
 */
function copyFile(from: number, to: number, length: number): void {
  const buffer = Buffer.allocUnsafe(Math.min(BODY_CHUNK_BYTES, length));
  for (let left = length; left > 0; ) {
    const count = readSync(from, buffer, 0, Math.min(buffer.length, left), null);
    if (count === 0) return;
    writeAll(to, buffer.subarray(0, count));
    left -= count;
  }
}
