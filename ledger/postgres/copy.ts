// Rows in the text format of COPY (PostgreSQL manual, COPY, "Text Format").

import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Client } from 'pg';

export type Cell = string | number | null;

/** Characters with a special meaning in the text format. */
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };

/** Replaces characters that PostgreSQL cannot store by U+FFFD: NUL and unpaired surrogates. */
export function safeText(text: string): string {
  return text.replaceAll(/\0|\p{Surrogate}/gu, '\ufffd');
}

/**
 * Any character that must be escaped or replaced. Most texts contain none, so this is tested first.
 */
const SPECIAL = /[\0\t\n\r\\\ud800-\udfff]/;

export function formatCell(value: Cell): string {
  if (value === null) return '\\N';
  // A number in COPY must not have an exponent.
  if (typeof value === 'number') return Number.isSafeInteger(value) ? `${value}` : String(BigInt(Math.round(value)));
  if (!SPECIAL.test(value)) return value;
  return safeText(value).replaceAll(/[\\\t\n\r]/g, (one) => ESCAPES[one] ?? one);
}

export function formatRow(cells: readonly Cell[]): string {
  let row = '';
  for (const cell of cells) row += `\t${formatCell(cell)}`;
  return `${row.slice(1)}\n`;
}

/** Copies rows into a table. All rows are in the table when the promise is fulfilled. */
export async function copyInto(
  client: Client,
  table: string,
  columns: readonly string[],
  rows: readonly string[],
): Promise<void> {
  const { from } = await import('pg-copy-streams');
  const into = client.query(from(`COPY ${table} (${columns.join(', ')}) FROM STDIN`));
  await pipeline(Readable.from(chunksOf(rows)), into);
}

const CHUNK = 500;

/** Joins rows into chunks, because each write costs more than a row. */
function* chunksOf(rows: readonly string[]): Generator<string> {
  for (let at = 0; at < rows.length; at += CHUNK) yield rows.slice(at, at + CHUNK).join('');
}
