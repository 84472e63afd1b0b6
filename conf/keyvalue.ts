// The key=value syntax of nph-webjob.cfg and webjob.conf (docs/protocol.md, sections 4 and 7), on
// top of `ini`. It knows lines, not settings: callers decide what a key means and whether a
// repeated key or another line is an error.
import ini from 'ini';

/** One `key=value`. */
export interface Entry {
  key: string;
  value: string;
  /** The line number in the file, from 1. */
  line: number;
}

/** The content of a file, line by line. */
export interface KeyValueFile {
  /** Every `key=value`, including repeated keys, in the order of the file. */
  entries: Entry[];
  /** The numbers of the lines that are neither blank nor a comment nor `key=value`. */
  otherLines: number[];
}

/** A byte order mark as Windows editors write it, as text and as bytes. */
const BYTE_ORDER_MARK = /^(?:\ufeff|\xef\xbb\xbf)/;
/** ASCII blanks only: in bytes, other values are parts of characters. */
const BLANKS = ' \t\v\f\r';
const STATEMENTS = {
  text: /^([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*)$/s,
  bytes: /^([A-Za-z][A-Za-z0-9]*)[ \t\v\f\r]*=[ \t\v\f\r]*(.*)$/s,
};

/**
 * Parses a file, given as text, or as `bytes` with one character for each byte. A byte order mark
 * at the beginning is dropped. `#` starts a comment anywhere; CR and blanks around key and value
 * are removed; quotes, `;`, `[`, `=` and backslashes in a value are ordinary characters. Never
 * throws.
 */
export function parseKeyValue(text: string, of: 'text' | 'bytes' = 'text'): KeyValueFile {
  const otherLines: number[] = [];
  let escaped = '';
  for (const [index, rawLine] of text.replace(BYTE_ORDER_MARK, '').split('\n').entries()) {
    const line = rawLine.replace(/#.*$/s, '');
    const statement = of === 'text' ? line.trim() : trimBlanks(line);
    if (statement === '') continue;
    const match = STATEMENTS[of].exec(statement);
    if (match) escaped += escapeStatement(index + 1, match[1] ?? '', match[2] ?? '');
    else otherLines.push(index + 1);
  }
  return { entries: readEntries(ini.parse(escaped)), otherLines };
}

/**
 * `ini` cuts values at `;`, strips quotes, nests sections and merges repeated keys. So each
 * statement is passed as a section of its own, named by its line number, with its value as a JSON
 * string. That is the one form that `ini` returns unchanged, once it contains neither of Unicode's
 * two line separators, at which `ini` loses the whole line.
 */
function escapeStatement(line: number, key: string, value: string): string {
  const text = JSON.stringify(value).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
  return `[${line}]\n${key}=${text}\n`;
}

/** Trims blanks at both ends, in linear time. */
function trimBlanks(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && BLANKS.includes(text.charAt(start))) start++;
  while (end > start && BLANKS.includes(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

function readEntries(sections: { [line: string]: { [key: string]: unknown } }): Entry[] {
  return Object.entries(sections).flatMap(([line, statement]) =>
    // `ini` turns the words true, false and null into values; String turns them back.
    Object.entries(statement).map(([key, value]) => ({ key, value: String(value), line: Number(line) })),
  );
}
