// Jobs in formats for other programs: CSV (RFC 4180), JSON lines, and SQL for PostgreSQL. All
// quoting is done here.
import { formatJson } from '../../cli/output.ts';
import { FIELDS, jobJson, jobRow, type Value } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import type { Site } from '../site/site.ts';

export interface Format {
  head(): string;
  /** Formats at most ROWS jobs together. */
  rows(site: Site, jobs: readonly Job[]): string;
  end: string;
}

export const ROWS = 500;

/** A spreadsheet evaluates a cell that begins like this as a formula. */
const FORMULA = /^[=+\-@\t\r]/;

/**
 * Makes the CSV format. With `forSpreadsheet`, a text that a spreadsheet would evaluate gets a
 * leading apostrophe.
 */
export function csvFormat(forSpreadsheet: boolean): Format {
  const cell = (value: Value): string => {
    if (value === null) return '';
    if (typeof value === 'number') return formatNumber(value);
    const text = forSpreadsheet && FORMULA.test(value) ? `'${value}` : value;
    // An empty text is quoted, to distinguish it from an unknown value.
    return text === '' || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const line = (values: readonly Value[]): string => `${values.map(cell).join(',')}\r\n`;
  return {
    head: () => line(FIELDS.map(({ column }) => column)),
    rows: (site, jobs) => jobs.map((job) => line(jobRow(site, job))).join(''),
    end: '',
  };
}

export const JSON_FORMAT: Format = {
  head: () => '',
  rows: (site, jobs) => jobs.map((job) => `${formatJson(jobJson(site, job))}\n`).join(''),
  end: '',
};

const SQL_TYPES = { text: 'text', list: 'text', integer: 'numeric', timestamp: 'timestamptz' } as const;

/**
 * Makes the SQL format. The output loads in one transaction or not at all, and replaces a table of
 * that name, so that it can be loaded repeatedly.
 */
export function sqlFormat(table: string): Format {
  return {
    head: () => `SET standard_conforming_strings = on;
SET client_encoding = 'UTF8';
BEGIN;
DROP TABLE IF EXISTS "${table}";
CREATE TABLE "${table}" (
${FIELDS.map(({ column, type }) => `  "${column}" ${SQL_TYPES[type]}`).join(',\n')}
);
`,
    rows: (site, jobs) => {
      const names = FIELDS.map(({ column }) => `"${column}"`).join(', ');
      const tuples = jobs.map((job) => `(${jobRow(site, job).map(sqlValue).join(', ')})`);
      return `INSERT INTO "${table}" (${names}) VALUES\n${tuples.join(',\n')};\n`;
    },
    end: 'COMMIT;\n',
  };
}

/** PostgreSQL does not accept NUL in a text. */
function sqlValue(value: Value): string {
  if (value === null) return 'NULL';
  if (typeof value === 'number') return formatNumber(value);
  return `'${value.replaceAll('\0', '\ufffd').replaceAll("'", "''")}'`;
}

/**
 * Formats a number without an exponent: a length that a client announced may have twenty digits.
 */
function formatNumber(value: number): string {
  return Number.isInteger(value) ? String(BigInt(value)) : String(value);
}
