// Compares everything in one run: static files of httpd, scripts that do nothing, a Perl script
// with the same work (bench/peer.pl), and WebJob in every shipped configuration, in turn, so that
// all of them run under the same conditions. Prints figures and ratios; asserts nothing.
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatChart } from './chart.ts';
import { watchFootprint } from './footprint.ts';
import { askTogether, type Operation } from './load.ts';
import { CAT, KILOBYTE, OTHER, PERL, type Peer, startPeers } from './peers.ts';
import { quantile } from './quantile.ts';
import { formatTable, type Row } from './table.ts';

const HELP = `Usage: node bench/all.ts [--quick] [--seconds N] [--turns N] [--large MIB] [--processes N]
                         [--only TEXT] [--what TEXT] [--against DIRECTORY] [--json] [--chart FILE]

Compares static files, scripts that do nothing, a Perl script with the same work, and WebJob as a CGI, with
mod_fcgid, with mod_proxy_fcgi, and on two servers behind a balancer. Each serves GETs of 1 KiB and PUTs of 1 KiB,
1 MiB and 1 GiB, from one client and from eight at once. Requests and megabytes a second are medians of the turns,
p50 and p99 those of all requests; memory is the peak of httpd and all processes behind it, shared pages once.

  --quick        run every kind for a moment only, with 16 MiB in place of 1 GiB
  --seconds N    duration of each kind in a turn (default 2)
  --turns N      number of turns (default 3)
  --large MIB    size of the large upload, by one client at a time (default 1024)
  --processes N  workers of WebJob behind mod_proxy_fcgi (default 2, as in the shipped unit)
  --only TEXT    only peers whose names match this regular expression, and the Perl script
  --what TEXT    only operations that contain TEXT: 'GET', '1 KiB', ...
  --against DIRECTORY  the dist/ of another build, measured in turn with this one
  --json         print one JSON value a line: the machine, then each row
  --chart FILE   also write a chart of requests a second (SVG)
`;
const CLIENTS = [1, 8] as const;
const MEGABYTE = 1024 * 1024;

interface Options {
  milliseconds: number;
  turns: number;
  largeMegabytes: number;
  processes: number;
  only: string;
  what: string;
  json: boolean;
  chart: string | undefined;
  against: string | undefined;
}

interface Cell {
  peer: Peer;
  operation: Operation;
  clients: number;
  milliseconds: number[];
  /** One for each round. */
  rates: number[];
  peakMegabytes: number;
}

async function main(): Promise<void> {
  const options = readOptions();
  if (!options) {
    process.stdout.write(HELP);
    return;
  }
  const loadBefore = loadavg()[0] ?? 0;
  const { peers, close } = await startPeers(options.processes, options.against);
  const cells: Cell[] = [];
  try {
    const chosen = peers.filter(({ name }) => name === PERL || name.match(options.only));
    for (const operation of listOperations(options.largeMegabytes).filter(({ name }) => name.includes(options.what))) {
      // The large upload has a single client: eight would only measure the disk, and need eight
      // times the space.
      for (const clients of operation.bytes > MEGABYTE ? [1] : CLIENTS) {
        const some = chosen.filter(({ methods }) => methods.includes(operation.method));
        cells.push(...(await measure(some, operation, clients, options)));
      }
    }
  } finally {
    await close();
  }
  const rows = cells.map((cell) => formatRow(cell, cells));
  const machine = {
    cpus: cpus().length,
    model: cpus()[0]?.model ?? '',
    kernel: release(),
    node: process.version,
    loadBefore,
    processes: options.processes,
  };
  if (options.chart !== undefined) writeFileSync(options.chart, formatChart(rows));
  if (options.json) process.stdout.write([machine, ...rows].map((value) => `${JSON.stringify(value)}\n`).join(''));
  else process.stdout.write(formatTable(rows));
}

function listOperations(largeMegabytes: number): Operation[] {
  const large = largeMegabytes % 1024 === 0 ? `${largeMegabytes / 1024} GiB` : `${largeMegabytes} MiB`;
  return [
    { name: 'GET 1 KiB', method: 'GET', bytes: KILOBYTE },
    { name: 'PUT 1 KiB', method: 'PUT', bytes: KILOBYTE },
    { name: 'PUT 1 MiB', method: 'PUT', bytes: MEGABYTE },
    { name: `PUT ${large}`, method: 'PUT', bytes: largeMegabytes * MEGABYTE },
  ];
}

/** The first round warms up and determines the memory, because watching that takes time. */
async function measure(peers: Peer[], operation: Operation, clients: number, options: Options): Promise<Cell[]> {
  const cells = peers.map(
    (peer): Cell => ({ peer, operation, clients, milliseconds: [], rates: [], peakMegabytes: 0 }),
  );
  for (let turn = 0; turn <= options.turns; turn += 1) {
    // Every other round runs backwards, so that no peer always runs after the same one.
    for (const cell of turn % 2 === 0 ? cells : cells.toReversed()) {
      const { peer, milliseconds, rates } = cell;
      const target = { ...peer, isEmpty: undefined };
      const asked = peer.isEmpty ? { ...operation, bytes: 0 } : operation;
      const when = turn === 0 ? 'memory' : `turn ${turn} of ${options.turns}`;
      process.stderr.write(`${operation.name}, ${clients} at once, ${when}: ${peer.name}\n`);
      const stop = turn === 0 ? watchFootprint(peer.pids) : undefined;
      // Writes out what an earlier peer left in the cache, so that this one need not wait for it.
      spawnSync('sync');
      const load = await askTogether(target, asked, clients, options.milliseconds);
      if (stop) cell.peakMegabytes = stop();
      else {
        milliseconds.push(...load.milliseconds);
        rates.push(load.milliseconds.length / load.seconds);
      }
      for (const name of readdirSync(peer.incoming)) rmSync(join(peer.incoming, name));
    }
  }
  return cells;
}

function formatRow(cell: Cell, cells: readonly Cell[]): Row {
  const { peer, operation, clients, milliseconds, rates, peakMegabytes } = cell;
  const rate = quantile(rates, 0.5);
  const ratioTo = (name: string): number => {
    const other = cells.find((it) => it.peer.name === name && it.operation === operation && it.clients === clients);
    return rate / quantile(other?.rates ?? [], 0.5);
  };
  return {
    operation: operation.name,
    clients,
    peer: peer.name,
    isDurable: operation.method === 'PUT' ? peer.isDurable === true : undefined,
    requests: milliseconds.length,
    p50Milliseconds: quantile(milliseconds, 0.5),
    p99Milliseconds: quantile(milliseconds, 0.99),
    requestsPerSecond: rate,
    toPerl: ratioTo(PERL),
    toCat: operation.method === 'PUT' ? ratioTo(CAT) : undefined,
    toOther: peer.name.endsWith(OTHER) ? undefined : ratioTo(peer.name + OTHER),
    megabytesPerSecond: (rate * (peer.isEmpty ? 0 : operation.bytes)) / 1e6,
    peakMegabytes,
  };
}

function readOptions(): Options | undefined {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const is = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({
    options: {
      quick: is,
      json: is,
      help: is,
      chart: { type: 'string' },
      against: { type: 'string' },
      only: text(''),
      what: text(''),
      seconds: text('2'),
      turns: text('3'),
      large: text('1024'),
      processes: text('2'),
    },
  });
  if (values.help) return undefined;
  for (const name of ['seconds', 'turns', 'large', 'processes'] as const)
    if (!/^[1-9][0-9]{0,4}$/.test(values[name])) throw new RangeError(`--${name} is a whole number from 1`);
  const { json, chart, only, what, against } = values;
  const common = { processes: Number(values.processes), json, chart, only, what, against };
  if (values.quick) return { milliseconds: 200, turns: 1, largeMegabytes: 16, ...common };
  const { seconds, turns, large } = values;
  return { milliseconds: Number(seconds) * 1000, turns: Number(turns), largeMegabytes: Number(large), ...common };
}

await main();
