// Short runs of bench/all.ts and bench/request.ts: they work, and their output has the documented
// form.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const bench = join(import.meta.dirname, '..', '..', 'bench');
const CGI = join(bench, '..', 'dist', 'nph-webjob.cgi');
const COLUMNS = ['p50Milliseconds', 'p99Milliseconds', 'requestsPerSecond', 'toPerl', 'peakMegabytes'] as const;

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return runBench('all.ts', ...args);
}

function runBench(name: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [join(bench, name), ...args], { encoding: 'utf8', timeout: 240_000 });
}

it('bench/all.ts measures, prints one value a line, and draws charts', () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-bench-'));
  try {
    const chart = join(folder, 'chart.svg');
    const { status, stdout, stderr } = run(
      ...['--quick', '--only', 'mod_proxy_fcgi', '--what', '1 KiB', '--json', '--chart', chart],
    );
    assert.equal(status, 0, stderr);
    const [machine, ...rows] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.equal(machine.node, process.version);
    assert.deepEqual(
      rows.map(({ operation, clients, peer }) => `${operation} ${clients} ${peer}`),
      ['GET 1 KiB 1', 'GET 1 KiB 8', 'PUT 1 KiB 1', 'PUT 1 KiB 8'].flatMap((what) => [
        `${what} nph script in Perl`,
        `${what} webjob, mod_proxy_fcgi`,
      ]),
    );
    for (const row of rows) for (const column of COLUMNS) assert.ok(row[column] > 0, `${row.peer}: ${column}`);
    assert.match(stderr, /^PUT 1 KiB, 8 at once, turn 1 of 1: webjob, mod_proxy_fcgi$/m);
    const svg = readFileSync(chart, 'utf8');
    assert.match(svg, /^<svg [\s\S]*prefers-color-scheme: dark[\s\S]*webjob, mod_proxy_fcgi \*<[\s\S]*<\/svg>\n$/);
    assert.equal(svg.match(/<rect class="webjob"/g)?.length, 2);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('bench/all.ts explains its usage and its errors', () => {
  assert.match(run('--help').stdout, /^Usage: node bench\/all\.ts /);
  const { status, stderr } = run('--turns', 'many');
  assert.equal(status, 1);
  assert.match(stderr, /--turns is a whole number from 1/);
});

describe('bench/request.ts', () => {
  it('prints the CPU time of a GET and a PUT, its ratio to an empty script, and the limit of the GET', () => {
    const { status, stdout, stderr } = runBench('request.ts', '--rounds', '2', '--against', CGI);
    const [heading = '', ...rows] = stdout.trimEnd().split('\n');
    assert.match(heading, /^one request +CPU ms +ratio$/, stderr);
    const cells = rows.map((row) => /^(\S+(?: \S+)*?) {2,}([0-9.]+) +([0-9.]+)(?: {2}limit (1\.25))?$/.exec(row) ?? []);
    const names = ['empty Node script', 'webjob GET', 'other GET', 'webjob PUT', 'other PUT', 'GET, manifest'];
    assert.deepEqual(
      cells.map(([, name]) => name),
      names,
    );
    assert.deepEqual(
      cells.map(([, , , , limit]) => limit !== undefined),
      names.map((name) => name === 'webjob GET'),
    );
    for (const [, name, milliseconds, ratio] of cells)
      assert.ok(Number(milliseconds) > 1 && Number(ratio) >= 0.5, name);
    // A printed ratio is rounded.
    const ratio = Number(cells[1]?.[3]);
    if (Math.abs(ratio - 1.25) > 0.001) assert.equal(status, ratio > 1.25 ? 1 : 0, stderr);
  });

  it('rejects a script that does not answer 200', () => {
    const { status, stderr } = runBench('request.ts', '--rounds', '1', '--against', '/bin/true');
    assert.equal(status, 1);
    assert.match(stderr, /other PUT: /);
  });
});
