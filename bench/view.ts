// The cost of a page of the view: processor time of its worker, as a multiple of an empty FastCGI
// answer measured in the same run, and the size of the page; then the time that concurrent readers
// wait while uploads arrive, and the peak memory of the worker. Prints results; asserts nothing.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { addJobs, clientsOf, makeLocker, NEEDLE } from './locker.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';
import { leaveStatus } from './status.ts';
import { type Answer, ask, cpuMilliseconds, peakMegabytes, startWorker, VIEW } from './view-worker.ts';

const HELP = `Usage: node bench/view.ts [--uploads N] [--lines M] [--clients C] [--locker DIRECTORY] [--state DIRECTORY]
                          [--requests R] [--readers N] [--puts P] [--page TEXT]

Requests pages of a site of N uploads (default 20000) and M log lines (default 200000: 100,000 jobs) from a worker over
its socket, R times each (default 40): first one request after the other, with a new job before each, for the processor
time; then by N concurrent readers (default 4) while P jobs arrive each second (default 20), for the time readers wait.

  --clients C         clients of a site that is made (default: a tenth of the uploads)
  --locker DIRECTORY  a site made by bench/locker.ts (default: make one and remove it)
  --state DIRECTORY   the directory of the view, with its index if it has one (default: make one and remove it)
  --page TEXT         only pages whose names contain TEXT
Needs dist/ and Linux.
`;
const PEER = join(import.meta.dirname, 'view-peer.ts');

interface Page {
  name: string;
  path: string;
  query?: string;
}

interface Plan {
  folder: string;
  state: string | undefined;
  requests: number;
  readers: number;
  puts: number;
  page: string;
}

async function measure({ folder, state, requests, readers, puts, page: wanted }: Plan): Promise<void> {
  const run = mkdtempSync(join(tmpdir(), 'webjob-view-'));
  const [viewSocket, peerSocket] = [join(run, 'view'), join(run, 'peer')];
  const children: ChildProcess[] = [];
  try {
    const environment = {
      REQUEST_METHOD: 'GET',
      SCRIPT_NAME: '/webjob-view',
      SERVER_PROTOCOL: 'HTTP/1.1',
      REMOTE_USER: 'alice',
      WEBJOB_PROPERTIES_FILE: join(folder, 'etc', 'nph-webjob.cfg'),
      WEBJOB_VIEW_DIRECTORY: state ?? join(run, 'state'),
    };
    leaveStatus(folder);
    await fill(environment);
    const view = await startWorker(VIEW, viewSocket);
    children.push(view);
    const peer = await startWorker(PEER, peerSocket);
    children.push(peer);
    const get = ({ path, query = '' }: Page): Promise<Answer> =>
      ask(viewSocket, { ...environment, PATH_INFO: path, QUERY_STRING: query });
    const empty = await measureCost(peer, 5 * requests, () => ask(peerSocket, environment));
    print('an empty answer', empty, empty.cpu);
    const pages = (await pagesOf(get)).filter(({ name }) => name.includes(wanted));
    for (const page of pages) {
      await get(page);
      const cost = await measureCost(view, requests, async () => {
        addJobs(folder, 1);
        return await get(page);
      });
      const adding = setInterval(() => addJobs(folder, 1), 1000 / puts);
      const wait = await measureWait(requests, readers, () => get(page));
      clearInterval(adding);
      print(page.name, { ...cost, ...wait }, empty.cpu, peakMegabytes(view));
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
  cpu95: number;
  kilobytes: number;
}

interface Wait {
  p50: number;
  p95: number;
}

/** Measures requests one after the other, so that the cost of each is known. */
async function measureCost(worker: ChildProcess, requests: number, get: () => Promise<Answer>): Promise<PageCost> {
  const costs: number[] = [];
  let bytes = 0;
  for (let count = 0; count < requests; count++) {
    const before = cpuMilliseconds(worker);
    const { body } = await get();
    costs.push(cpuMilliseconds(worker) - before);
    bytes = body.length;
  }
  const cpu = costs.reduce((sum, cost) => sum + cost, 0) / requests;
  return { cpu, cpu95: quantile(costs, 0.95), kilobytes: bytes / 1000 };
}

/** Concurrent readers, each of which sends its next request as soon as it has an answer. */
async function measureWait(requests: number, readers: number, get: () => Promise<Answer>): Promise<Wait> {
  const times: number[] = [];
  let left = requests;
  const read = async (): Promise<void> => {
    while (left-- > 0) times.push((await get()).milliseconds);
  };
  await Promise.all(Array.from({ length: readers }, read));
  return { p50: quantile(times, 0.5), p95: quantile(times, 0.95) };
}

/** The pages, with an existing client, command and job. */
async function pagesOf(get: (page: Page) => Promise<Answer>): Promise<Page[]> {
  const { body } = await get({ name: '', path: '/jobs.json', query: 'state=done' });
  const { jobs } = JSON.parse(body.toString()) as {
    jobs: { jobId: string; client: string; command: string; group: string | null }[];
  };
  const [job, other] = jobs.filter(({ group }) => group !== null);
  if (!job || !other) throw new Error('fewer than two jobs have their uploads in the locker');
  return [
    { name: 'overview', path: '/' },
    { name: 'jobs', path: '/jobs' },
    { name: 'jobs, failed, by client', path: '/jobs', query: 'state=failed&sort=client' },
    { name: 'jobs, names of no client', path: '/jobs', query: 'client=z*' },
    { name: 'jobs, names of few', path: '/jobs', query: `client=*${job.client.slice(-3)}` },
    { name: 'jobs, a rare exit', path: '/jobs', query: 'exit=199' },
    { name: 'jobs, a rare text', path: '/jobs', query: `text=${NEEDLE}` },
    { name: 'jobs, a text nowhere', path: '/jobs', query: 'text=there_is_no_such_text' },
    { name: 'job', path: `/job/${job.jobId}` },
    { name: 'client', path: `/client/${job.client}` },
    { name: 'command', path: `/command/${job.command}` },
    { name: 'clients', path: '/clients' },
    { name: 'commands', path: '/commands' },
    { name: 'search, a rare text', path: '/search', query: `q=${NEEDLE}` },
    { name: 'diff', path: '/diff', query: `from=${other.jobId}&to=${job.jobId}` },
    { name: 'failures.atom', path: '/failures.atom' },
    { name: 'assignments', path: '/assignments' },
    { name: 'assignment of all', path: '/assignment/1' },
    { name: 'expectations missed', path: '/missed' },
    { name: 'stream', path: `/stream/out/${job.jobId}` },
    { name: 'index.json', path: '/index.json' },
    { name: 'jobs.json', path: '/jobs.json' },
    { name: 'job, JSON', path: `/job/${job.jobId}.json` },
    { name: 'command, JSON', path: `/command/${job.command}.json` },
  ];
}

const COLUMNS = ['CPU ms', 'ratio', 'p95', 'wait p50', 'wait p95', 'kB', 'peak MB'];

function print(name: string, cost: PageCost & Partial<Wait>, empty: number, peak?: number): void {
  const { cpu, cpu95, p50, p95, kilobytes } = cost;
  const cells = [cpu, cpu / empty, cpu95, p50, p95, kilobytes, peak].map((value) => value?.toFixed(1) ?? '');
  console.log(`${name.padEnd(26)}${cells.map((cell) => cell.padStart(10)).join('')}`);
}

const text = (value: string) => ({ type: 'string', default: value }) as const;
const { values } = parseArgs({
  options: {
    uploads: text('20000'),
    lines: text('200000'),
    clients: { type: 'string' },
    page: text(''),
    locker: { type: 'string' },
    state: { type: 'string' },
    help: { type: 'boolean' },
    requests: text('40'),
    readers: text('4'),
    puts: text('20'),
  },
});
if (values.help) process.stdout.write(HELP);
else {
  const made = values.locker === undefined ? mkdtempSync(join(tmpdir(), 'webjob-view-site-')) : undefined;
  const folder = made === undefined ? resolve(values.locker ?? '') : join(made, 'site');
  try {
    if (made !== undefined) {
      const uploads = parseCount('uploads', values.uploads);
      const clients = values.clients === undefined ? clientsOf(uploads) : parseCount('clients', values.clients);
      makeLocker({
        folder,
        uploads,
        clients,
        lines: parseCount('lines', values.lines),
        seed: 1,
        end: Date.now(),
      });
    }
    console.log(`${''.padEnd(26)}${COLUMNS.map((cell) => cell.padStart(10)).join('')}`);
    await measure({
      folder,
      state: values.state === undefined ? undefined : resolve(values.state),
      page: values.page,
      requests: parseCount('requests', values.requests),
      readers: parseCount('readers', values.readers),
      puts: parseCount('puts', values.puts),
    });
  } finally {
    if (made !== undefined) rmSync(made, { recursive: true, force: true });
  }
}
