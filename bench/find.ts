// What finding costs in a locker of many groups and a log of many lines, each beside what an operator would do by hand, in turn, so that both see
// the same machine. Prints times to the first line and to the end, the most memory, and ratios; asserts nothing.
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { residentKilobytes } from './footprint.ts';
import { makeLocker } from './locker.ts';
import { parseCount } from './options.ts';

const HELP = `Usage: node bench/find.ts [--groups N] [--lines M] [--locker folder] [--runs R] [--only text]

What webjobctl takes in a locker of N groups (default 100000) and a log of M lines (default 1000000): jobs, show and search beside grep and
ls, then what reads everything, then index, and what asks it. Of R runs (default 3) of a row that is short the fastest counts. A locker
that bench/locker.ts made may be given, its index is made anew; else one is made and removed. --only takes the rows whose names hold a
text. Needs dist/ and Linux.

`;
const WEBJOBCTL = join(import.meta.dirname, '..', 'dist', 'webjobctl');

interface Cost {
  firstMilliseconds: number;
  milliseconds: number;
  megabytes: number;
}

/** Runs a command to its end; memory is the most that was seen resident. */
function measure([program = '', ...args]: string[]): Promise<Cost> {
  const startedAt = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let first: number | undefined;
  let most = 0;
  const look = setInterval(() => {
    most = Math.max(most, residentKilobytes(child.pid));
  }, 10);
  child.stdout.on('data', () => {
    first ??= performance.now() - startedAt;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject).on('close', () => {
      clearInterval(look);
      const milliseconds = performance.now() - startedAt;
      resolve({ firstMilliseconds: first ?? milliseconds, milliseconds, megabytes: most / 1024 });
    });
  });
}

interface Row {
  name: string;
  ours: string[];
  /** What an operator would do by hand. */
  peer?: string[];
  /** Whether it runs once only. */
  isLong?: true;
}

function listRows(folder: string): Row[] {
  const [log, incoming] = [join(folder, 'logfiles', 'nph-webjob.log'), join(folder, 'incoming')];
  const ctl = [process.execPath, WEBJOBCTL, '--config', join(folder, 'etc', 'nph-webjob.cfg')];
  const jobId = findJobId(log);
  const text = 'line 7 of client77:';
  const byGrep = ['grep', '-rnF', '--include=*.out', text, incoming];
  return [
    { name: 'an empty Node', ours: [process.execPath, '-e', '0'] },
    {
      name: 'jobs --since, a day',
      ours: [...ctl, 'jobs', '--since', '2026-10-31 00:00Z'],
      peer: ['sh', '-c', `tail -n 10200 ${log} | grep " PUT "`],
    },
    {
      name: 'jobs --since, a week',
      ours: [...ctl, 'jobs', '--since', '2026-10-25 00:00Z'],
      peer: ['sh', '-c', `grep " PUT " ${log} | tail -n 36000; ls -f ${incoming} | wc -l`],
    },
    { name: 'jobs --limit 20', ours: [...ctl, 'jobs', '--limit', '20'], isLong: true },
    {
      name: 'show, whole job id',
      ours: [...ctl, 'show', jobId],
      peer: ['sh', '-c', `grep -F ${jobId} ${log}; grep -rlF --include=*.rdy ${jobId} ${incoming}`],
    },
    { name: 'search in out', ours: [...ctl, 'search', text, '--in', 'out'], peer: byGrep, isLong: true },
    { name: 'clients', ours: [...ctl, 'clients'], isLong: true },
    { name: 'metrics', ours: [...ctl, 'metrics', '--textfile', '-'], isLong: true },
    { name: 'export --csv', ours: [...ctl, 'export', '--csv'], isLong: true },
    {
      name: 'report --limit 10000',
      ours: [...ctl, 'report', '--since', '2026-10-01', '--limit', '10000', '--html', join(folder, 'report')],
      isLong: true,
    },
    { name: 'index', ours: [...ctl, 'index', '--rebuild'], isLong: true },
    { name: 'index, nothing new', ours: [...ctl, 'index'] },
    { name: 'indexed: search', ours: [...ctl, 'search', text, '--in', 'out'], peer: byGrep },
    { name: 'indexed: search /re/', ours: [...ctl, 'search', '/line 7 of client77: .*00$/', '--in', 'out'] },
    { name: 'indexed: jobs, a day', ours: [...ctl, 'jobs', '--since', '2026-10-31 00:00Z'] },
    { name: 'indexed: clients', ours: [...ctl, 'clients'], isLong: true },
    {
      name: 'older index: search',
      ours: ['sh', '-c', 'touch "$0"; exec "$@"', incoming, ...ctl, 'search', text, '--in', 'out'],
      peer: byGrep,
    },
  ];
}

/** Of a job that ended shortly before the last. */
function findJobId(log: string): string {
  const fd = openSync(log, 'r');
  try {
    const tail = Buffer.alloc(Math.min(4096, fstatSync(fd).size));
    readSync(fd, tail, 0, tail.length, fstatSync(fd).size - tail.length);
    return /\n\S+ \S+ (\S+) .* PUT /.exec(tail.toString('latin1'))?.[1] ?? '';
  } finally {
    closeSync(fd);
  }
}

async function compare(folder: string, runs: number, only: string): Promise<void> {
  for (const left of ['index', 'report']) rmSync(join(folder, left), { recursive: true, force: true });
  process.stdout.write(
    `load ${loadavg()[0]?.toFixed(1)}${'first ms'.padStart(26)}${'all ms'.padStart(10)}${'MB'.padStart(7)}  by hand ms  ratio\n`,
  );
  for (const { name, ours, peer, isLong } of listRows(folder).filter(({ name }) => name.includes(only))) {
    const costs: Cost[] = [];
    const hands: number[] = [];
    for (let run = 0; run < (isLong ? 1 : runs); run++) {
      costs.push(await measure(ours));
      if (peer) hands.push((await measure(peer)).milliseconds);
    }
    const best = (pick: (cost: Cost) => number): number => Math.min(...costs.map(pick));
    const [first, all] = [best(({ firstMilliseconds }) => firstMilliseconds), best(({ milliseconds }) => milliseconds)];
    const memory = Math.max(...costs.map(({ megabytes }) => megabytes));
    const hand = hands.length > 0 ? Math.min(...hands) : undefined;
    const beside = hand === undefined ? '' : `${hand.toFixed(0).padStart(12)}${(all / hand).toFixed(1).padStart(7)}`;
    process.stdout.write(
      `${name.padEnd(24)}${first.toFixed(0).padStart(10)}${all.toFixed(0).padStart(10)}${memory.toFixed(0).padStart(7)}${beside}\n`,
    );
  }
  for (const left of ['index', 'report']) rmSync(join(folder, left), { recursive: true, force: true });
}

const options = {
  groups: { type: 'string', default: '100000' },
  lines: { type: 'string', default: '1000000' },
  locker: { type: 'string' },
  runs: { type: 'string', default: '3' },
  only: { type: 'string', default: '' },
  help: { type: 'boolean', default: false },
} as const;
const { values } = parseArgs({ options });
if (values.help) process.stdout.write(HELP);
else if (values.locker !== undefined) await compare(values.locker, parseCount('runs', values.runs), values.only);
else {
  const [groups, lines] = [parseCount('groups', values.groups), parseCount('lines', values.lines)];
  const root = mkdtempSync(join(tmpdir(), 'webjob-find-'));
  try {
    const folder = join(root, 'site');
    makeLocker({ folder, groups, lines, seed: 1 });
    await compare(folder, parseCount('runs', values.runs), values.only);
  } finally {
    rmSync(root, { recursive: true });
  }
}
