// The cost of pushing the jobs of a site to PostgreSQL, and of queries there: CPU time of
// webjobctl, wall-clock time of the whole. Prints results; asserts nothing.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Client } from 'pg';
import { run } from './cost.ts';
import { addJobs, clientsOf, makeLocker } from './locker.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/ledger.ts --to URL [--uploads N] [--lines M] [--locker DIRECTORY] [--rounds R]

Pushes a site of N uploads (default 20000) and M log lines (default ten times as many) to an empty database at URL, as
webjobctl ledger setup makes it, then one new job, then nothing. Then runs each query R times (default 20).

  --locker DIRECTORY   a site made by bench/locker.ts, with an index (default: make one and remove it)
Needs dist/, bash and Linux.
`;
const OURS = join(import.meta.dirname, '..', 'dist', 'webjobctl');

/**
 * Queries of an operator and of a Grafana panel, through psql: a period, a client, a state, an id.
 */
const QUESTIONS: Readonly<Record<string, string>> = {
  'the newest 20': 'SELECT * FROM webjob.runs ORDER BY at DESC LIMIT 20',
  'failed of a day':
    "SELECT * FROM webjob.runs WHERE state = 'failed' AND at > (SELECT max(at) FROM webjob.jobs) - interval '1 day'",
  'one client':
    'SELECT * FROM webjob.runs WHERE client = (SELECT max(client) FROM webjob.sums) ORDER BY at DESC LIMIT 20',
  'one job': 'SELECT * FROM webjob.runs WHERE unit = (SELECT unit FROM webjob.jobs ORDER BY at DESC LIMIT 1)',
  'a day by the hour':
    "SELECT date_trunc('hour', at), state, count(*) FROM webjob.runs WHERE at > (SELECT max(at) FROM webjob.jobs) - interval '1 day' GROUP BY 1, 2",
};

function print(name: string, text: string): void {
  process.stdout.write(`${name.padEnd(24)} ${text}\n`);
}

async function ask(url: string, rounds: number): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  for (const [name, text] of Object.entries(QUESTIONS)) {
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const started = performance.now();
      await client.query(text);
      times.push(performance.now() - started);
    }
    print(name, `${quantile(times, 0.5).toFixed(1)} ms, 95 % within ${quantile(times, 0.95).toFixed(1)} ms`);
  }
  await client.end();
}

async function measure(): Promise<void> {
  const { values } = parseArgs({
    options: {
      to: { type: 'string' },
      uploads: { type: 'string', default: '20000' },
      lines: { type: 'string' },
      locker: { type: 'string' },
      rounds: { type: 'string', default: '20' },
      help: { type: 'boolean' },
    },
  });
  if (values.help || !values.to) {
    process.stdout.write(HELP);
    return;
  }
  const url = values.to;
  const uploads = parseCount('uploads', values.uploads);
  const rounds = parseCount('rounds', values.rounds);
  const folder = values.locker ?? join(mkdtempSync(join(tmpdir(), 'webjob-bench-')), 'site');
  try {
    if (!values.locker)
      makeLocker({
        folder,
        uploads,
        lines: parseCount('lines', values.lines ?? String(10 * uploads)),
        clients: clientsOf(uploads),
        seed: 1,
        end: Date.now(),
      });
    const config = ['--config', join(folder, 'etc', 'nph-webjob.cfg')];
    const webjobctl = async (...words: string[]) => await run([process.execPath, OURS, ...words]);
    const push = ['--json', ...config, 'ledger', 'push', '--to', url, '--as', 'bench'];
    await webjobctl(...config, 'index');
    await webjobctl('ledger', 'setup', '--to', url);
    await webjobctl('ledger', 'forget', 'bench', '--to', url);
    for (const name of ['everything', '1 new job', 'nothing new']) {
      if (name === '1 new job') addJobs(folder, 1);
      const { cpuSeconds, seconds, output } = await webjobctl(...push);
      const { jobs } = JSON.parse(output) as { jobs: number };
      const rate =
        name === 'everything'
          ? `, ${Math.round(jobs / cpuSeconds)} jobs a CPU second, ${Math.round(jobs / seconds)} a second`
          : '';
      print(name, `${jobs} jobs, ${cpuSeconds.toFixed(2)} s of CPU${rate}`);
    }
    await ask(url, rounds);
  } finally {
    if (!values.locker) rmSync(join(folder, '..'), { recursive: true, force: true });
  }
}

await measure();
