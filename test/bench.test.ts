// bench/all.ts for a moment: it starts whom it compares, and what it says of two of them has the shape that it promises.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';

const all = join(import.meta.dirname, '..', 'bench', 'all.ts');
const COLUMNS = ['p50Milliseconds', 'p99Milliseconds', 'requestsPerSecond', 'toPerl', 'peakMegabytes'] as const;

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [all, ...args], { encoding: 'utf8', timeout: 240_000 });
}

it('measures, one value a line, and draws', () => {
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

it('says how it is used, and what is wrong', () => {
  assert.match(run('--help').stdout, /^Usage: node bench\/all\.ts /);
  const { status, stderr } = run('--turns', 'many');
  assert.equal(status, 1);
  assert.match(stderr, /--turns is a whole number from 1/);
});
