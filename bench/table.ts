// The results of bench/all.ts as a table for people.

/** The result for one peer and one operation; also a line of `--json`. */
export interface Row {
  operation: string;
  /** Concurrent clients. */
  clients: number;
  peer: string;
  /** For a PUT, whether it is on disk when it is answered. */
  isDurable: boolean | undefined;
  requests: number;
  p50Milliseconds: number;
  p99Milliseconds: number;
  requestsPerSecond: number;
  megabytesPerSecond: number;
  /** The ratio of requests a second to the Perl script. */
  toPerl: number;
  /** For a PUT, the ratio of requests a second to a shell script that syncs. */
  toCat: number | undefined;
  /** The ratio of requests a second to another build behind the same web server. */
  toOther: number | undefined;
  /** All processes of the server together; shared pages count once. */
  peakMegabytes: number;
}

const HEADING = ['p50 ms', 'p99 ms', 'requests/s', 'to Perl', 'to cat', 'to other', 'MB/s', 'memory MB'];

export function formatTable(rows: readonly Row[]): string {
  const titleOf = ({ operation, clients }: Row): string =>
    `${operation}, ${clients === 1 ? 'one client' : `${clients} clients`}`;
  const blocks = [...new Set(rows.map(titleOf))].map((title) => {
    const block = rows.filter((row) => titleOf(row) === title);
    const heading = `${title.padEnd(38)}${HEADING.map((text) => text.padStart(11)).join('')}`;
    const note = block.some(({ isDurable }) => isDurable) ? '* on disk when it is answered\n' : '';
    return `${[heading, ...block.map(formatLine)].join('\n')}\n${note}`;
  });
  return blocks.join('\n');
}

function formatLine(row: Row): string {
  const { p50Milliseconds, p99Milliseconds, requestsPerSecond, megabytesPerSecond, peakMegabytes } = row;
  const cells = [
    ...[p50Milliseconds, p99Milliseconds, requestsPerSecond].map(short),
    ...[row.toPerl, row.toCat, row.toOther].map((ratio) => (Number.isFinite(ratio) ? Number(ratio).toFixed(2) : '')),
    ...[megabytesPerSecond, peakMegabytes].map(short),
  ];
  return `${`${row.peer}${row.isDurable ? ' *' : ''}`.padEnd(38)}${cells.map((cell) => cell.padStart(11)).join('')}`;
}

/** The measurements are not more precise than three digits. */
function short(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}
