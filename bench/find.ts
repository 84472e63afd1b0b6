// What finding costs in a locker of many groups and a log of many lines, each beside what an operator would do by hand, in turn, so that both see
// the same machine. Prints times to the first line and to the end, the most memory, and ratios; asserts nothing.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeLocker } from './locker.ts';

const HELP = `Usage: node bench/find.ts [--groups N] [--lines M] [--locker folder]

webjobctl jobs, show and search in a locker of N groups (default 100000) and a log of M lines (default 1000000), beside
grep and ls. A locker that bench/locker.ts made may be given; else one is made and removed. Needs dist/ and Linux.

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
  }, 20);
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

/** The most that was resident so far, as the kernel counts it. */
function residentKilobytes(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

async function compare(folder: string): Promise<void> {
  const [log, incoming] = [join(folder, 'logfiles', 'nph-webjob.log'), join(folder, 'incoming')];
  const ctl = [process.execPath, WEBJOBCTL, '--config', join(folder, 'etc', 'nph-webjob.cfg')];
  const jobId =
    /^\S+ \S+ (\S+)/.exec(
      readFileSync(log, 'latin1')
        .slice(-115 * 40)
        .split('\n')[5] ?? '',
    )?.[1] ?? '';
  const pairs: [string, string[], string[]][] = [
    [
      'jobs --since, a day',
      [...ctl, 'jobs', '--since', '2026-10-31 00:00Z'],
      ['sh', '-c', `tail -n 10200 ${log} | grep " PUT "`],
    ],
    [
      'jobs --since, a week',
      [...ctl, 'jobs', '--since', '2026-10-25 00:00Z'],
      ['sh', '-c', `grep " PUT " ${log} | tail -n 36000; ls -f ${incoming} | wc -l`],
    ],
    [
      'show, whole job id',
      [...ctl, 'show', jobId],
      ['sh', '-c', `grep -F ${jobId} ${log}; grep -rlF --include=*.rdy ${jobId} ${incoming}`],
    ],
    [
      'search in out',
      [...ctl, 'search', 'line 7 of client77:', '--in', 'out'],
      ['grep', '-rnF', '--include=*.out', 'line 7 of client77:', incoming],
    ],
  ];
  process.stdout.write(`${'first ms'.padStart(34)}${'all ms'.padStart(10)}${'MB'.padStart(7)}  by hand ms  ratio\n`);
  for (const [name, ours, peer] of pairs) {
    const [cost, hand] = [await measure(ours), await measure(peer)];
    const numbers = [cost.firstMilliseconds, cost.milliseconds].map((value) => value.toFixed(0).padStart(10)).join('');
    const ratio = (cost.milliseconds / hand.milliseconds).toFixed(1);
    process.stdout.write(
      `${name.padEnd(24)}${numbers}${cost.megabytes.toFixed(0).padStart(7)}${hand.milliseconds.toFixed(0).padStart(12)}${ratio.padStart(7)}\n`,
    );
  }
}

function parseCount(name: string, text: string): number {
  if (!/^[1-9][0-9]{0,7}$/.test(text)) throw new RangeError(`--${name} is a whole number from 1`);
  return Number(text);
}

const options = {
  groups: { type: 'string', default: '100000' },
  lines: { type: 'string', default: '1000000' },
  locker: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;
const { values } = parseArgs({ options });
if (values.help) process.stdout.write(HELP);
else if (values.locker !== undefined) await compare(values.locker);
else {
  const [groups, lines] = [parseCount('groups', values.groups), parseCount('lines', values.lines)];
  const root = mkdtempSync(join(tmpdir(), 'webjob-find-'));
  try {
    const folder = join(root, 'site');
    makeLocker({ folder, groups, lines, seed: 1 });
    await compare(folder);
  } finally {
    rmSync(root, { recursive: true });
  }
}
