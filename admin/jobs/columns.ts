// The layout of `webjobctl jobs` for the table of fields. Rows are printed as they arrive, so each
// column has a fixed width.
import { hasColours, paint, safeLine } from '../../cli/output.ts';
import { type ColumnName, SHOWN_COLUMNS, type ShownColumn } from '../../ledger/fields.ts';
import type { Job, JobState } from '../../ledger/job.ts';
import type { Site } from '../site/site.ts';

const COLOURS: Partial<Record<JobState, 'green' | 'red' | 'yellow' | 'dim'>> = {
  done: 'green',
  failed: 'red',
  refused: 'red',
  missing: 'red',
  incomplete: 'yellow',
  orphan: 'yellow',
  got: 'dim',
};

/** The line of titles. */
export function formatTitles(names: readonly ColumnName[]): string {
  return layOut(names.map((name) => pad(SHOWN_COLUMNS[name].title, SHOWN_COLUMNS[name])));
}

/** Formats a job as one line; a value wider than its column shifts the rest. */
export function formatRow(site: Site, job: Job, names: readonly ColumnName[]): string {
  const cells = names.map((name) => {
    const column: ShownColumn = SHOWN_COLUMNS[name];
    const cell = pad(safeLine(String(column.value(job, site) ?? '-')), column);
    return name === 'state' && hasColours() ? paint(cell, COLOURS[job.state] ?? 'dim') : cell;
  });
  return layOut(cells);
}

function pad(text: string, { width, isNumber }: ShownColumn): string {
  return isNumber ? text.padStart(width) : text.padEnd(width);
}

function layOut(cells: string[]): string {
  return cells.join('  ').trimEnd();
}
