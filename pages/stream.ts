// Shows a stream that a client sent: its beginning as text in which every control character is
// visible, or as a hex dump.
import { isUtf8 } from 'node:buffer';
import { HIDDEN_CHARACTERS, writeOut } from '../cli/output.ts';
import { html, type Markup } from './html.ts';

/** The maximum number of bytes of a stream that are shown as text. */
export const MAX_TEXT_BYTES = 64 * 1024;
/** The maximum number of bytes of a stream that are shown as a hex dump. */
const MAX_DUMP_BYTES = 2048;

/** The maximum number of control characters in 100 bytes of text. */
const MAX_CONTROL_SHARE = 10;

export interface StreamHead {
  /** The first bytes, up to MAX_TEXT_BYTES. */
  head: Buffer;
  /** The size of the stream in bytes. */
  size: number;
}

/**
 * Whether bytes are better shown as a hex dump: with NUL bytes, or more control characters than
 * terminal colours explain.
 */
export function isBinary(bytes: Uint8Array): boolean {
  let controls = 0;
  for (const byte of bytes) {
    if (byte < 9 || (byte > 13 && byte < 32) || byte === 127) controls++;
  }
  return bytes.includes(0) || controls * 100 > bytes.length * MAX_CONTROL_SHARE;
}

/** Shows a stream, or a message in its place. `label` is its name for screen readers. */
export function formatStream(label: string, { head, size }: StreamHead): Markup {
  if (size === 0) return html`<p class="note">Nothing.</p>`;
  const binary = isBinary(head);
  const shown = binary ? head.subarray(0, MAX_DUMP_BYTES) : wholeCharacters(head, size);
  const note = size > shown.length ? `, the first ${shown.length} of ${size} bytes` : `, ${size} bytes`;
  return html`<p class="note">${binary ? 'Binary' : 'Text'}${note}.</p>
<pre class="${binary ? 'dump' : 'text'}" role="region" aria-label="${label}" tabindex="0">${binary ? formatDump(shown) : formatText(shown)}</pre>`;
}

const HIDDEN_BYTES = /[\x00-\x08\x0b-\x1f\x7f-\xff]+/g;

/**
 * Text in which control characters are written out and marked. Invalid UTF-8 is shown as `\xhh`.
 */
export function formatText(bytes: Buffer): Markup {
  const isText = isUtf8(bytes);
  const text = bytes.toString(isText ? 'utf8' : 'latin1').replaceAll('\r\n', '\n');
  const parts: Markup[] = [];
  let done = 0;
  for (const { 0: run, index } of text.matchAll(isText ? HIDDEN_CHARACTERS : HIDDEN_BYTES)) {
    parts.push(html`${text.slice(done, index)}<span class="shown">${Array.from(run, writeOut)}</span>`);
    done = index + run.length;
  }
  return html`${parts}${text.slice(done)}`;
}

/** Text in which every occurrence of another text is marked. */
export function formatMarked(text: string, marked: string): Markup {
  if (marked === '') return html`${text}`;
  const [first = '', ...others] = text.split(marked);
  return html`${first}${others.map((part) => html`<mark>${marked}</mark>${part}`)}`;
}

/** `00000000  68 6f 73 74 ...  |host...|`; the first byte is at `offset` of its stream. */
export function formatDump(bytes: Uint8Array, offset = 0): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = Array.from(bytes.subarray(at, at + 16));
    const hex = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${(offset + at).toString(16).padStart(8, '0')}  ${hex.padEnd(47)}  |${text}|`);
  }
  return lines.join('\n');
}

/** Removes an incomplete character from the end of a beginning that was cut off. */
export function wholeCharacters(head: Buffer, size: number): Buffer {
  if (head.length === size || isUtf8(head)) return head;
  for (let cut = 1; cut <= 3; cut++) {
    const shorter = head.subarray(0, head.length - cut);
    if (isUtf8(shorter)) return shorter;
  }
  return head;
}
