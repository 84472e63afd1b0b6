// The cost of "200 means on disk", and how concurrent processes share it: the kernel merges their
// fsyncs into one commit of the file system's journal. Real deposits into one locker, compared with
// the same without any fsync. Asserts nothing.
import { type ChildProcess, fork } from 'node:child_process';
import fs, { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { storeUpload } from 'webjob-locker';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/puts.ts [--seconds N] [--folder DIRECTORY]

Measures deposits a second and fsync time of each, for 1, 2, 4, 8 and 16 processes that store into one locker at once.

  --seconds N         duration for each number of processes (default 2)
  --folder DIRECTORY  a directory on the file system to measure (default: the temporary directory)
`;
const PROCESSES = [1, 2, 4, 8, 16];
const LENGTHS = { out: 1024, err: 0, env: 600 };

interface Order {
  folder: string;
  worker: number;
  seconds: number;
  isDurable: boolean;
}

interface Result {
  milliseconds: number[];
  syncMilliseconds: number;
}

/** Runs in a process of its own: makes deposits until the time is over. */
function work({ folder, worker, seconds, isDurable }: Order): Result {
  const result: Result = { milliseconds: [], syncMilliseconds: 0 };
  const { fsyncSync } = fs;
  fs.fsyncSync = (fd) => {
    const start = performance.now();
    if (isDurable) fsyncSync(fd);
    result.syncMilliseconds += performance.now() - start;
  };
  syncBuiltinESMExports();
  const bytes = Buffer.alloc(LENGTHS.out, 'x');
  const read = (buffer: Uint8Array): number => bytes.copy(buffer);
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    const start = performance.now();
    const jobId = `bench_${worker}_${result.milliseconds.length}`;
    const base = join(folder, `client${worker}_${isDurable}_${result.milliseconds.length}`);
    storeUpload({ base, jobId, lengths: LENGTHS, overwrite: false }, { read });
    result.milliseconds.push(performance.now() - start);
  }
  return result;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '2' },
      folder: { type: 'string', default: tmpdir() },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (!/^[1-9][0-9]?$/.test(values.seconds)) throw new RangeError('--seconds is a whole number from 1 to 99');
  const folder = mkdtempSync(join(values.folder, 'webjob-puts-'));
  try {
    await measure(folder, Number(values.seconds));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function measure(folder: string, seconds: number): Promise<void> {
  const heading = ['processes', 'PUT/s', 'ratio', 'p50 ms', 'p99 ms', 'fsync ms', 'no fsync/s', 'ratio'];
  process.stdout.write(`${heading.map((text) => text.padStart(11)).join('')}\n`);
  let first: number[] | undefined;
  for (const count of PROCESSES) {
    const locker = join(folder, String(count));
    fs.mkdirSync(locker);
    const durable = await store(locker, count, seconds, true);
    const loose = await store(locker, count, seconds, false);
    const rates = [durable, loose].map(({ milliseconds }) => milliseconds.length / seconds);
    first ??= rates;
    const [rate = 0, looseRate = 0] = rates;
    const cells = [
      String(count),
      rate.toFixed(0),
      (rate / (first[0] ?? 0)).toFixed(2),
      ...[0.5, 0.99].map((part) => quantile(durable.milliseconds, part).toFixed(1)),
      (durable.syncMilliseconds / durable.milliseconds.length).toFixed(1),
      looseRate.toFixed(0),
      (looseRate / (first[1] ?? 0)).toFixed(2),
    ];
    process.stdout.write(`${cells.map((cell) => cell.padStart(11)).join('')}\n`);
  }
}

/** Waits until all processes are up before the first deposit. */
async function store(folder: string, count: number, seconds: number, isDurable: boolean): Promise<Result> {
  const workers = Array.from({ length: count }, () => fork(import.meta.filename, ['worker']));
  try {
    await Promise.all(workers.map(receive));
    const results = await Promise.all(
      workers.map((child, worker) => {
        child.send({ folder, worker, seconds, isDurable } satisfies Order);
        return receive(child) as Promise<Result>;
      }),
    );
    return {
      milliseconds: results.flatMap((result) => result.milliseconds),
      syncMilliseconds: results.reduce((sum, result) => sum + result.syncMilliseconds, 0),
    };
  } finally {
    for (const child of workers) if (child.connected) child.disconnect();
  }
}

function receive(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    child.once('message', resolve);
    child.once('exit', (code) => reject(new Error(`a process ended with ${code}`)));
  });
}

if (process.send) {
  process.once('message', (order: Order) => process.send?.(work(order)));
  process.send('ready');
} else await main();
