// Jobs as other programs load them: CSV (RFC 4180), JSON lines, and SQL for PostgreSQL. Every value is quoted here and nowhere else.
import { formatJson } from '../output.ts';
import type { JOB_COLUMNS, Value } from './columns.ts';

type Columns = typeof JOB_COLUMNS;

export interface Format {
  head(columns: Columns): string;
  /** Rows that go together, at most ROWS of them. */
  rows(columns: Columns, rows: readonly Value[][]): string;
  end: string;
}

export const ROWS = 500;

/** A spreadsheet takes a cell that begins so for a formula. */
const FORMULA = /^[=+\-@\t\r]/;

/** With `forSpreadsheet` a text that a spreadsheet would run gets an apostrophe in front. */
export function csvFormat(forSpreadsheet: boolean): Format {
  const cell = (value: Value): string => {
    if (value === null) return '';
    if (typeof value === 'number') return formatNumber(value);
    const text = forSpreadsheet && FORMULA.test(value) ? `'${value}` : value;
    // Quoted, an empty text is not what is not known.
    return text === '' || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const line = (values: readonly Value[]): string => `${values.map(cell).join(',')}\r\n`;
  return {
    head: (columns) => line(columns.map(({ name }) => name)),
    rows: (_, rows) => rows.map(line).join(''),
    end: '',
  };
}

export const JSON_FORMAT: Format = {
  head: () => '',
  rows: (columns, rows) =>
    rows
      .map((values) => Object.fromEntries(columns.map(({ name }, index) => [name, values[index]])))
      .map((value) => `${formatJson(value)}\n`)
      .join(''),
  end: '',
};

const SQL_TYPES = { text: 'text', integer: 'numeric', timestamp: 'timestamptz' } as const;

/** Loads in one transaction, or not at all. Takes the place of a table of that name, so that it can be loaded again and again. */
export function sqlFormat(table: string): Format {
  return {
    head: (columns) => `SET standard_conforming_strings = on;
SET client_encoding = 'UTF8';
BEGIN;
DROP TABLE IF EXISTS "${table}";
CREATE TABLE "${table}" (
${columns.map(({ name, type }) => `  "${name}" ${SQL_TYPES[type]}`).join(',\n')}
);
`,
    rows: (columns, rows) => {
      const names = columns.map(({ name }) => `"${name}"`).join(', ');
      const tuples = rows.map((values) => `(${values.map(sqlValue).join(', ')})`);
      return `INSERT INTO "${table}" (${names}) VALUES\n${tuples.join(',\n')};\n`;
    },
    end: 'COMMIT;\n',
  };
}

/** PostgreSQL takes no NUL in a text. */
function sqlValue(value: Value): string {
  if (value === null) return 'NULL';
  if (typeof value === 'number') return formatNumber(value);
  return `'${value.replaceAll('\0', '\ufffd').replaceAll("'", "''")}'`;
}

/** Without an exponent: a length that a client announced can have twenty digits. */
function formatNumber(value: number): string {
  return Number.isInteger(value) ? String(BigInt(value)) : String(value);
}
