// What a page of the view costs: processor time of its worker, as a multiple of an empty answer by FastCGI measured in the same run, the time a
// reader waits, and the weight of the page; and the most memory of the worker. Before each request a job comes. Prints; asserts nothing.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import {
  formatBeginning,
  formatPairs,
  formatRecord,
  formatStream,
  RECORD_TYPES,
  RESPONDER_ROLE,
  RecordParser,
} from 'node-cgi-compat/responder';
import { addJobs, makeLocker, NEEDLE } from './locker.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/view.ts [--uploads N] [--lines M] [--locker DIRECTORY] [--requests R]

Pages of a site of N uploads (default 20000) and M log lines (default 200000: 100,000 jobs), by a worker that is asked over its
socket, R times each (default 40).

  --locker DIRECTORY  a site that bench/locker.ts made; else one is made and removed
Needs dist/ and Linux.
`;
const VIEW = join(import.meta.dirname, '..', 'dist', 'webjob-view.cgi');
const PEER = join(import.meta.dirname, 'view-peer.ts');
const TICK_MS = 10;

interface Answer {
  milliseconds: number;
  body: Buffer;
}

/** Asks once, over a connection of its own, as httpd does. */
function ask(socket: string, variables: Record<string, string>): Promise<Answer> {
  const startedAt = performance.now();
  const end = (type: number): Buffer => formatRecord({ type, requestId: 1, content: Buffer.alloc(0) });
  const request = Buffer.concat([
    formatRecord({
      ...{ type: RECORD_TYPES.beginRequest, requestId: 1 },
      content: formatBeginning({ role: RESPONDER_ROLE, keepConnection: false }),
    }),
    ...formatStream(RECORD_TYPES.params, 1, formatPairs(Object.entries(variables))),
    end(RECORD_TYPES.params),
    end(RECORD_TYPES.stdin),
  ]);
  return new Promise((done, reject) => {
    const parser = new RecordParser();
    const pieces: Buffer[] = [];
    const peer = connect(socket, () => peer.write(request));
    peer.on('data', (bytes: Buffer) => {
      for (const { type, content } of parser.push(bytes))
        if (type === RECORD_TYPES.stdout) pieces.push(Buffer.from(content));
    });
    peer.on('error', reject).on('close', () => {
      const whole = Buffer.concat(pieces);
      const head = whole.indexOf('\r\n\r\n');
      if (!whole.toString('latin1', 0, 20).startsWith('Status: 200'))
        reject(new Error(`${variables.PATH_INFO}: ${whole.toString('utf8', 0, 200)}`));
      done({ milliseconds: performance.now() - startedAt, body: whole.subarray(head + 4) });
    });
  });
}

/** Processor time of a process so far. */
function cpuMilliseconds({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

const peakMegabytes = ({ pid }: ChildProcess): number =>
  Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024;

async function start(program: string, socket: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, '--listen', socket], {
    stdio: ['ignore', 'ignore', 'inherit'],
    // As the shipped unit has it.
    env: { PATH: process.env.PATH, NODE_OPTIONS: '--max-old-space-size=128 --max-semi-space-size=4' },
  });
  while (!existsSync(socket)) await sleep(20);
  return child;
}

interface Page {
  name: string;
  path: string;
  query?: string;
}

async function measure(folder: string, requests: number): Promise<void> {
  const run = mkdtempSync(join(tmpdir(), 'webjob-view-'));
  const [viewSocket, peerSocket] = [join(run, 'view'), join(run, 'peer')];
  const children: ChildProcess[] = [];
  try {
    const environment = {
      ...{ REQUEST_METHOD: 'GET', SCRIPT_NAME: '/webjob-view', SERVER_PROTOCOL: 'HTTP/1.1', REMOTE_USER: 'alice' },
      ...{ WEBJOB_PROPERTIES_FILE: join(folder, 'etc', 'nph-webjob.cfg'), WEBJOB_VIEW_DIRECTORY: join(run, 'state') },
    };
    await fill(environment);
    const view = await start(VIEW, viewSocket);
    children.push(view);
    const peer = await start(PEER, peerSocket);
    children.push(peer);
    const get = ({ path, query = '' }: Page): Promise<Answer> =>
      ask(viewSocket, { ...environment, PATH_INFO: path, QUERY_STRING: query });
    const empty = await measurePage(peer, 5 * requests, () => ask(peerSocket, environment));
    print('an empty answer', empty, empty.cpu);
    for (const page of await pagesOf(get)) {
      await get(page);
      const cost = await measurePage(view, requests, async () => {
        addJobs(folder, 1);
        return await get(page);
      });
      print(page.name, cost, empty.cpu);
    }
    console.log(`most memory of the worker: ${peakMegabytes(view).toFixed(0)} MB; load ${loadavg()[0]?.toFixed(1)}`);
  } finally {
    for (const child of children) child.kill();
    rmSync(run, { recursive: true, force: true });
  }
}

async function fill(environment: Record<string, string>): Promise<void> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, [VIEW, '--index'], {
    stdio: 'inherit',
    env: { ...environment, PATH: process.env.PATH },
  });
  await new Promise((done) => child.once('exit', done));
  console.log(`the first index: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
}

interface PageCost {
  cpu: number;
  p50: number;
  p95: number;
  kilobytes: number;
}

async function measurePage(worker: ChildProcess, requests: number, get: () => Promise<Answer>): Promise<PageCost> {
  const before = cpuMilliseconds(worker);
  const times: number[] = [];
  let bytes = 0;
  for (let count = 0; count < requests; count++) {
    const { milliseconds, body } = await get();
    times.push(milliseconds);
    bytes = body.length;
  }
  const cpu = (cpuMilliseconds(worker) - before) / requests;
  return { cpu, p50: quantile(times, 0.5), p95: quantile(times, 0.95), kilobytes: bytes / 1000 };
}

/** With a client, a command and a job that there are. */
async function pagesOf(get: (page: Page) => Promise<Answer>): Promise<Page[]> {
  const { body } = await get({ name: '', path: '/jobs.json', query: 'state=done' });
  const { jobs } = JSON.parse(body.toString()) as {
    jobs: { jobId: string; client: string; command: string; group: string | null }[];
  };
  const job = jobs.find(({ group }) => group !== null);
  if (!job) throw new Error('no job has its upload in the locker');
  return [
    { name: 'overview', path: '/' },
    { name: 'jobs', path: '/jobs' },
    { name: 'jobs, failed, by client', path: '/jobs', query: 'state=failed&sort=client' },
    { name: 'jobs, names of no client', path: '/jobs', query: 'client=z*' },
    { name: 'jobs, a rare text', path: '/jobs', query: `text=${NEEDLE}` },
    { name: 'job', path: `/job/${job.jobId}` },
    { name: 'client', path: `/client/${job.client}` },
    { name: 'command', path: `/command/${job.command}` },
    { name: 'clients', path: '/clients' },
    { name: 'commands', path: '/commands' },
    { name: 'search, a rare text', path: '/search', query: `q=${NEEDLE}` },
    { name: 'diff', path: '/diff', query: `from=previous&to=${job.jobId}` },
    { name: 'failures.atom', path: '/failures.atom' },
  ];
}

function print(name: string, { cpu, p50, p95, kilobytes }: PageCost, empty: number): void {
  const cells = [cpu.toFixed(1), (cpu / empty).toFixed(1), p50.toFixed(1), p95.toFixed(1), kilobytes.toFixed(1)];
  console.log(`${name.padEnd(26)}${cells.map((cell) => cell.padStart(10)).join('')}`);
}

const { values } = parseArgs({
  options: {
    ...{ uploads: { type: 'string', default: '20000' }, lines: { type: 'string', default: '200000' } },
    ...{ locker: { type: 'string' }, requests: { type: 'string', default: '40' }, help: { type: 'boolean' } },
  },
});
if (values.help) process.stdout.write(HELP);
else {
  const made = values.locker === undefined ? mkdtempSync(join(tmpdir(), 'webjob-view-site-')) : undefined;
  const folder = made === undefined ? resolve(values.locker ?? '') : join(made, 'site');
  try {
    if (made !== undefined) {
      const uploads = parseCount('uploads', values.uploads);
      const plan = { folder, uploads, lines: parseCount('lines', values.lines), clients: Math.max(50, uploads / 10) };
      makeLocker({ ...plan, seed: 1, end: Date.now() });
    }
    console.log(
      `${''.padEnd(26)}${['CPU ms', 'ratio', 'p50 ms', 'p95 ms', 'kB'].map((cell) => cell.padStart(10)).join('')}`,
    );
    await measure(folder, parseCount('requests', values.requests));
  } finally {
    if (made !== undefined) rmSync(made, { recursive: true, force: true });
  }
}
