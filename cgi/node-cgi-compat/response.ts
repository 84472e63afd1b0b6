// The answer of a CGI script and its two spellings: a parsed header (RFC 3875, section 6.2) for ordinary scripts and FastCGI,
// a whole HTTP response (section 5) for nph scripts, whose bytes the server passes on verbatim.
import { closeSync, readSync } from 'node:fs';
import { BODY_CHUNK_BYTES } from './body.ts';
import { writeAll } from './descriptors.ts';

/** What a handler returns. */
export interface CgiResponse {
  status: number;
  reason: string;
  headers: (readonly [name: string, value: string])[];
  /** Content-Length in bytes. */
  contentLength: number;
  /** The bytes, or an open file that holds at least so many and is closed once they are sent. */
  content?: Uint8Array | { fd: number } | undefined;
  /** What is left to do once the answer is on its way. Must not throw. */
  afterwards?: (() => void) | undefined;
  /** Called when the request has ended, whatever became of the answer. Must not throw. */
  atEnd?: (() => void) | undefined;
  /** How long a script may read the rest of the body; then it answers without, and is killed. As long as it takes when undefined. */
  drainLimitMs?: number | undefined;
}

/** How the header is spelled: `nph` for a script that answers the client itself, `parsed` for one the server reads. */
export type HeaderStyle = 'nph' | 'parsed';

/**
 * The header with its blank line. Throws RangeError for a reason, name or value that would break out of its line: a
 * script that lets a client's bytes through must fail, not answer with a header the client wrote.
 */
export function formatHead(response: CgiResponse, style: HeaderStyle): string {
  const { status, reason } = response;
  const first = style === 'nph' ? `HTTP/1.1 ${status} ${reason}` : `Status: ${status} ${reason}`;
  const lines = [
    first,
    ...response.headers.map(([name, value]) => `${name}: ${value}`),
    `Content-Length: ${response.contentLength}`,
    // The connection ends with the answer of an nph script, and a client must be told (RFC 9112, section 9.3).
    ...(style === 'nph' ? ['Connection: close'] : []),
  ];
  if (!lines.every((line) => /^[\t\x20-\x7e]*$/.test(line)))
    throw new RangeError('a response header holds a control or non-ASCII character');
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** Writes header and content to `fd` and closes the content's file. A peer that left (EPIPE) is not an error. */
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

/** Copies exactly `length` bytes, fewer only when the file shrank meanwhile: the client then sees a short body. */
function copyFile(from: number, to: number, length: number): void {
  const buffer = Buffer.allocUnsafe(Math.min(BODY_CHUNK_BYTES, length));
  for (let left = length; left > 0; ) {
    const count = readSync(from, buffer, 0, Math.min(buffer.length, left), null);
    if (count === 0) return;
    writeAll(to, buffer.subarray(0, count));
    left -= count;
  }
}
