// How webjobctl speaks: data on stdout, talk on stderr, colours on a terminal only, and nothing of a client's bytes that a terminal obeys.
import { say as sayLine } from './streams.ts';

/** True where colours belong: a terminal, and nobody who asked for none (https://no-color.org). */
export function hasColours(stream: { isTTY?: boolean } = process.stdout): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

const COLOURS = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;

export function paint(text: string, colour: keyof typeof COLOURS, isColoured = hasColours()): string {
  return isColoured ? `\x1b[${COLOURS[colour]}m${text}\x1b[0m` : text;
}

/** Text of a client as a terminal may see it: lines and tabs stay, every other control character becomes `\xhh`. */
export function safeText(text: string): string {
  return text.replace(HIDDEN_CHARACTERS, (run) => Array.from(run, writeOut).join(''));
}

/** What a terminal or a reader would obey and not see, lines and tabs aside: control characters, and those that turn the direction of text. */
export const HIDDEN_CHARACTERS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+/g;

/** `\x1b` */
export function writeOut(character: string): string {
  const code = character.charCodeAt(0);
  return code > 0xff ? `\\u${code.toString(16).padStart(4, '0')}` : `\\x${code.toString(16).padStart(2, '0')}`;
}

/** Most of what is shown. */
const PLAIN = /^[\x20-\x7e]*$/;

/** One line of it: line ends and tabs are written out too. */
export function safeLine(text: string): string {
  if (PLAIN.test(text)) return text;
  return safeText(text).replace(/[\n\t]/g, (c) => (c === '\n' ? '\\n' : '\\t'));
}

export function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}

const CHUNK_LENGTH = 64 * 1024;

/** Many lines in few writes. */
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

/** One JSON value a line. */
export function printJson(value: unknown): void {
  printLine(formatJson(value));
}

/** JSON that a terminal may show: what it would obey is written as `\\u009b`, which JSON reads back. */
export function formatJson(value: unknown): string {
  return JSON.stringify(value).replace(HIDDEN_CHARACTERS, (run) =>
    Array.from({ length: run.length }, (_, at) => `\\u${run.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  );
}

const MAX_WARNED = 1000;
const warned = new Set<string>();

/** What the operator should know although the command goes on; the same once only. */
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
  /** Numbers stand at the right. */
  align?: 'right';
}

/** Rows under their titles, as wide as the widest of each column. */
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
  return Array.from({ length: rows.length + 1 }, (_, row) => {
    let line = '';
    for (const [index, { align }] of columns.entries()) {
      const [cell, width] = [cells[index]?.[row] ?? '', widths[index] ?? 0];
      line += `${index === 0 ? '' : '  '}${align === 'right' ? cell.padStart(width) : cell.padEnd(width)}`;
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

/** Progress of long work on stderr: on a terminal one line that is written over, elsewhere nothing. */
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
