// The output of webjobctl: data on stdout, messages on stderr, colours on terminals only, and no
// bytes from clients that control a terminal.
import { say as sayLine } from './streams.ts';

/** Whether to use colours: on a terminal, unless the user asked for none (https://no-color.org). */
export function hasColours(stream: { isTTY?: boolean } = process.stdout): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

const COLOURS = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;

export function paint(text: string, colour: keyof typeof COLOURS, isColoured = hasColours()): string {
  return isColoured ? `\x1b[${COLOURS[colour]}m${text}\x1b[0m` : text;
}

/**
 * Makes a client's text safe for a terminal: line feeds and tabs stay, other control characters
 * become `\xhh`.
 */
export function safeText(text: string): string {
  return text.replace(HIDDEN_CHARACTERS, (run) => Array.from(run, writeOut).join(''));
}

/**
 * Characters with an invisible effect on a terminal or a reader, except line feeds and tabs:
 * control characters, and those that change the direction of text.
 */
export const HIDDEN_CHARACTERS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+/g;

/** `\x1b` */
export function writeOut(character: string): string {
  const code = character.charCodeAt(0);
  return code > 0xff ? `\\u${code.toString(16).padStart(4, '0')}` : `\\x${code.toString(16).padStart(2, '0')}`;
}

/** A quick test for most texts. */
const PLAIN = /^[\x20-\x7e]*$/;

/** Makes a single line safe for a terminal: line feeds and tabs are escaped too. */
export function safeLine(text: string): string {
  if (PLAIN.test(text)) return text;
  return safeText(text).replace(/[\n\t]/g, (c) => (c === '\n' ? '\\n' : '\\t'));
}

export function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}

const CHUNK_LENGTH = 64 * 1024;

/** Prints many lines in few writes. */
export function printLines(lines: Iterable<string>): void {
  let chunk = '';
  for (const line of lines) {
    chunk += `${line}\n`;
    if (chunk.length < CHUNK_LENGTH) continue;
    process.stdout.write(chunk);
    chunk = '';
  }
  if (chunk !== '') process.stdout.write(chunk);
}

/** Prints one JSON value on a line. */
export function printJson(value: unknown): void {
  printLine(formatJson(value));
}

/**
 * JSON that is safe for a terminal: control characters are written as `\\u009b`, which a JSON
 * parser reads back.
 */
export function formatJson(value: unknown): string {
  return JSON.stringify(value).replace(HIDDEN_CHARACTERS, (run) =>
    Array.from({ length: run.length }, (_, at) => `\\u${run.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  );
}

const MAX_WARNED = 1000;
const warned = new Set<string>();

/** Prints a warning, once for each text; the command continues. */
export function warn(message: string): void {
  if (warned.size < MAX_WARNED && warned.size === warned.add(message).size) return;
  sayLine(`webjobctl: warning: ${safeLine(message)}`);
}

export function say(message: string): void {
  sayLine(`webjobctl: ${safeLine(message)}`);
}

export interface Column<Row> {
  title: string;
  value(row: Row): string;
  /** `right` for numbers. */
  align?: 'right';
}

/** Formats rows under their titles, with columns as wide as necessary. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string[] {
  const widths = columns.map(({ title }) => title.length);
  const cells = columns.map(({ title, value }, index) => {
    const column = [title];
    for (const row of rows) {
      const cell = safeLine(value(row));
      column.push(cell);
      if (cell.length > (widths[index] ?? 0)) widths[index] = cell.length;
    }
    return column;
  });
  // An iterator over the columns for each row would take longer than everything else.
  return Array.from({ length: rows.length + 1 }, (_, row) => {
    let line = '';
    for (let index = 0; index < columns.length; index++) {
      const [cell, width] = [cells[index]?.[row] ?? '', widths[index] ?? 0];
      if (index > 0) line += '  ';
      line += columns[index]?.align === 'right' ? cell.padStart(width) : cell.padEnd(width);
    }
    return line.trimEnd();
  });
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** `1.5 MB` */
export function formatBytes(bytes: number): string {
  let unit = 0;
  for (; bytes >= 1000 && unit < UNITS.length - 1; unit++) bytes /= 1000;
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${UNITS[unit]}`;
}

/** Progress of long work on stderr: on a terminal one line that is rewritten, otherwise nothing. */
export function startProgress(what: string, total?: number): { advance(by?: number): void; end(): void } {
  const isShown = process.stderr.isTTY === true;
  const startedAt = Date.now();
  let done = 0;
  let shownAt = 0;
  const show = (): void => {
    shownAt = Date.now();
    const rate = done / Math.max(0.001, (shownAt - startedAt) / 1000);
    const left = total !== undefined && rate > 0 ? `, ${Math.ceil((total - done) / rate)} s left` : '';
    process.stderr.write(
      `\r\x1b[K${what}: ${done}${total === undefined ? '' : ` of ${total}`}, ${Math.round(rate)}/s${left}`,
    );
  };
  return {
    advance(by = 1) {
      done += by;
      if (isShown && Date.now() - shownAt > 200) show();
    },
    end() {
      if (isShown) process.stderr.write('\r\x1b[K');
    },
  };
}
