// Reads a stretch of a stream of any size, and shows it as text or as a hex dump.
import { closeSync, readSync } from 'node:fs';
import type { StreamName } from 'webjob-locker';
import type { StoredStream } from '../ledger/streams.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatDump, formatMarked, formatText, isBinary, wholeCharacters } from '../pages/stream.ts';
import { groupDigits } from './words.ts';

/** The maximum number of bytes that a page shows at once. */
const TEXT_BYTES = 16 * 1024;
const DUMP_BYTES = 4 * 1024;
const PIECE_BYTES = 256 * 1024;

/** The stretch that is requested. */
export interface Wish {
  stream: StreamName;
  at: number | 'last';
  as: 'text' | 'hex' | undefined;
  /** A text to search for, beginning at `at`. */
  find: string | undefined;
}

export interface Stretch {
  stream: StreamName;
  bytes: Buffer;
  from: number;
  size: number;
  as: 'text' | 'hex';
  find: string | undefined;
  /** The result of the search; undefined when no text was searched for. */
  found: 'found' | 'not found' | 'not yet found' | undefined;
}

/** Reads a stretch. Throws the errors of reading. */
export async function readStretch(stored: StoredStream, wish: Wish, deadline: number): Promise<Stretch> {
  const { stream, find } = wish;
  const size = stored.bytes;
  let from = wish.at === 'last' ? size : Math.min(wish.at, size);
  let found: Stretch['found'];
  if (find !== undefined) {
    const looked = await findPlace(stored, Buffer.from(find), wish.at === 'last' ? 0 : from, deadline);
    found = looked.isFound ? 'found' : looked.isWhole ? 'not found' : 'not yet found';
    if (looked.isFound) from = Math.max(0, looked.at - 512);
    else if (!looked.isWhole) from = looked.at;
  }
  if (wish.at === 'last' && find === undefined)
    from = Math.max(0, size - (wish.as === 'hex' ? DUMP_BYTES : TEXT_BYTES));
  const read = await readAt(stored, from, TEXT_BYTES + 4);
  const as = wish.as ?? (isBinary(read) ? 'hex' : 'text');
  if (as === 'hex') {
    const start = from - (from % 16);
    const bytes = start === from ? read : await readAt(stored, start, DUMP_BYTES);
    return { stream, bytes: bytes.subarray(0, DUMP_BYTES), from: start, size, as, find, found };
  }
  const skipped = from === 0 ? 0 : countContinuation(read);
  const cut = wholeCharacters(read.subarray(skipped, skipped + TEXT_BYTES), size - from - skipped);
  return { stream, bytes: cut, from: from + skipped, size, as, find, found };
}

/** A stretch that begins in the middle of a character is shown from the next one. */
function countContinuation(bytes: Buffer): number {
  let count = 0;
  while (count < 3 && ((bytes[count] ?? 0) & 0xc0) === 0x80) count++;
  return count;
}

async function readAt(stored: StoredStream, from: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.max(0, Math.min(length, stored.bytes - from)));
  let done = 0;
  if (stored.open) {
    const fd = stored.open();
    try {
      while (done < buffer.length) {
        const count = readSync(fd, buffer, done, buffer.length - done, from + done);
        if (count === 0) break;
        done += count;
      }
    } finally {
      closeSync(fd);
    }
    return buffer.subarray(0, done);
  }
  // An archived stream can only be read from its beginning.
  let at = 0;
  for await (const piece of stored.read()) {
    if (at + piece.length > from) done += piece.copy(buffer, done, Math.max(0, from - at));
    at += piece.length;
    if (done === buffer.length) break;
  }
  return buffer.subarray(0, done);
}

interface Looked {
  isFound: boolean;
  /** Whether the stream was searched to its end. */
  isWhole: boolean;
  /** The offset of the match, or how far the search has come. */
  at: number;
}

async function findPlace(stored: StoredStream, text: Buffer, from: number, deadline: number): Promise<Looked> {
  for (let at = from; at < stored.bytes; at += PIECE_BYTES) {
    const piece = await readAt(stored, at, PIECE_BYTES + text.length - 1);
    const index = piece.indexOf(text);
    if (index >= 0) return { isFound: true, isWhole: false, at: at + index };
    if (performance.now() > deadline)
      return { isFound: false, isWhole: false, at: Math.min(stored.bytes, at + PIECE_BYTES) };
  }
  return { isFound: false, isWhole: true, at: from };
}

/**
 * Shows the stretch with links to others; `href` returns the address of the page with these fields.
 */
export function formatStretch(
  label: string,
  stretch: Stretch,
  href: (query: Record<string, string | number | undefined>) => string,
): Markup {
  const { stream, bytes, from, size, as, find, found } = stretch;
  const to = from + bytes.length;
  const own = { s: stream, as };
  const ways: Markup[] = [];
  const step = as === 'hex' ? DUMP_BYTES : TEXT_BYTES;
  if (from > 0) {
    ways.push(html`<a href="${href({ ...own, pos: 0 })}">First</a>`);
    ways.push(html`<a href="${href({ ...own, pos: Math.max(0, from - step) })}">Previous</a>`);
  }
  if (to < size) {
    ways.push(html`<a href="${href({ ...own, pos: to })}">Next</a>`);
    ways.push(html`<a href="${href({ ...own, pos: 'last' })}">Last</a>`);
  }
  ways.push(
    as === 'hex'
      ? html`<a href="${href({ s: stream, pos: from, as: 'text' })}">As text</a>`
      : html`<a href="${href({ s: stream, pos: from, as: 'hex' })}">As hex</a>`,
  );
  if (find !== undefined && found !== 'not found')
    ways.push(
      html`<a href="${href({ ...own, find, pos: found === 'found' ? from + bytes.indexOf(find) + 1 : to })}">Find next</a>`,
    );
  const where =
    from === 0 && to >= size
      ? `${groupDigits(size)} bytes.`
      : `Bytes ${groupDigits(from)} to ${groupDigits(to)} of ${groupDigits(size)}.`;
  const shown = as === 'hex' ? html`${formatDump(bytes, from)}` : markText(bytes, find);
  return html`<p class="note ways">${where} ${find !== undefined && found === 'not found' ? html`<span class="state warn">Not found after this position.</span> ` : undefined}${found === 'not yet found' ? html`<span class="state warn">Not found so far.</span> ` : undefined}${ways.map((way, index) => (index === 0 ? way : html` · ${way}`))}</p>
<pre class="${as === 'hex' ? 'dump' : 'text'}" role="region" aria-label="${label}" tabindex="0">${shown}</pre>`;
}

function markText(bytes: Buffer, find: string | undefined): Markup {
  const text = bytes.toString('utf8');
  if (find !== undefined && text.includes(find)) return formatMarked(text, find);
  return formatText(bytes);
}
