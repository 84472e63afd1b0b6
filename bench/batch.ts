// The cost of a batch with nothing due: CPU time of a GET for it compared with a GET for a file, at
// a site without assignments, and at one with many assignments and clients. Exits with 1 when it
// exceeds its limit.
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatAssignment } from '../fleet/assignment.ts';
import { makeSite, type Site } from '../scripts/site.ts';
import { run } from './cost.ts';
import { parseCount } from './options.ts';
import { compareSites } from './sites.ts';
import { PLAIN } from './status.ts';

const HELP = `Usage: node bench/batch.ts [--rounds N] [--clients N] [--assignments N]

Measures the CPU time of a GET in milliseconds: of a file, of a batch without assignments, and of one with many.

  --rounds N       runs as a CGI, and rounds of 200 requests in a worker (default 40)
  --clients N      clients in the groups of the large site (default 100000)
  --assignments N  assignments of the large site (default 1000)
`;
/** Clients in a group. */
const GROUP = 1000;

async function main(): Promise<void> {
  const known = {
    rounds: { type: 'string', default: '40' },
    clients: { type: 'string', default: '100000' },
    assignments: { type: 'string', default: '1000' },
    help: { type: 'boolean' },
  } as const;
  const { rounds, clients, assignments, help } = parseArgs({ options: known }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  const [clientCount, count] = [parseCount('clients', clients), parseCount('assignments', assignments)];
  const settings = { BatchCommand: 'batch' };
  const isGood = await compareSites(
    [
      { name: 'a file', settings, fileName: 'host.sh' },
      { name: 'a batch, nothing assigned', settings, fileName: 'batch', limits: { cgi: 1.05, worker: 1.05 } },
      {
        name: `a batch, ${clientCount} clients, ${count} assignments`,
        settings,
        fileName: 'batch',
        limits: { cgi: 1.5, worker: 1.5 },
        prepare: (site) => writeFleet(site, clientCount, count),
      },
    ],
    parseCount('rounds', rounds),
  );
  if (!(await compareShow(clientCount, Math.min(parseCount('rounds', rounds), MOST_SHOWN))) || !isGood)
    process.exitCode = 1;
}

/** More rounds of a command that takes a second add nothing. */
const MOST_SHOWN = 7;
/** The limit for `assign show`, as a multiple of the CPU time of an empty Node process. */
const SHOW_LIMIT = 10;

/**
 * CPU time of `webjobctl assign show` as a multiple of an empty Node process, before any client has
 * fetched the assignment and after all have.
 */
async function compareShow(clients: number, rounds: number): Promise<boolean> {
  const site = makeSite({ settings: { BatchCommand: 'batch' } });
  try {
    writeFleet(site, clients, 1);
    const ids = Array.from({ length: clients }, (_, index) => `host-${index}`);
    const etc = dirname(site.propertiesFile);
    writeFileSync(join(etc, 'webjob.htpasswd'), ids.map((id) => `${id}:$2y$05$${'x'.repeat(53)}\n`).join(''));
    const now = Math.floor(Date.now() / 1000) - 60;
    const lines = ['1', '2'].map((id) =>
      formatAssignment({ ...PLAIN, id, command: 'host.sh', to: ['*'], from: now, schedule: { kind: 'once' } }),
    );
    writeFileSync(join(site.base, 'config', 'nph-webjob', 'assignments'), `${lines.join('\n')}\n`);
    const taken = join(site.base, 'dynamic', 'assignments', 'taken');
    mkdirSync(taken, { recursive: true });
    writeFileSync(
      join(taken, '2.server_1'),
      ids.map((id, index) => `${now} ${id} 1 server_1_${now}_${String(index).padStart(5, '0')}\n`).join(''),
    );
    const webjobctl = join(import.meta.dirname, '..', 'dist', 'webjobctl');
    const show = (id: string): string[] => {
      return [process.execPath, webjobctl, '-c', site.propertiesFile, 'assign', 'show', id, '--state', 'failed'];
    };
    const commands = { 'an empty Node': [process.execPath, '-e', ''], waiting: show('1'), fetched: show('2') };
    const times = new Map<string, number[]>();
    for (let round = 0; round < rounds; round++)
      for (const [name, words] of Object.entries(commands))
        times.set(name, [...(times.get(name) ?? []), (await run(words)).cpuSeconds]);
    const median = (name: string): number => (times.get(name) ?? []).sort((a, b) => a - b)[rounds >> 1] ?? 0;
    const base = median('an empty Node');
    process.stdout.write(
      `\nCPU time of webjobctl assign show, ${clients} clients, beside an empty Node (${(base * 1000).toFixed(0)} ms)\n`,
    );
    let isGood = true;
    for (const name of ['waiting', 'fetched']) {
      const ratio = median(name) / base;
      isGood &&= ratio <= SHOW_LIMIT;
      const said = ratio <= SHOW_LIMIT ? '' : `, and ${SHOW_LIMIT} is the most`;
      process.stdout.write(`  all ${name}: ${(median(name) * 1000).toFixed(0)} ms, ${ratio.toFixed(1)} times${said}\n`);
    }
    return isGood;
  } finally {
    site.remove();
  }
}

/**
 * Writes groups of a thousand clients, with the requesting one in the last of them, and assignments
 * for a group, a glob or all, none of them due for it.
 */
function writeFleet(site: Site, clients: number, assignments: number): void {
  const folder = join(site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  const count = Math.ceil(clients / GROUP);
  const groups = Array.from({ length: count }, (_, group) => {
    const members = Array.from({ length: GROUP }, (_, index) => `host-${group * GROUP + index}`);
    return `group-${group} = ${members.join(' ')}${group === count - 1 ? ' client1' : ''}\n`;
  });
  const later = Math.floor(Date.now() / 1000) + 86_400;
  const lines = Array.from({ length: assignments }, (_, index) => {
    const to = [index % 3 === 0 ? `host-${index}*` : index % 3 === 1 ? `group-${index % count}` : 'client*'];
    // Assignments that include the client are not due yet.
    const from = index % 3 === 2 || index % count === count - 1 ? later : 1000;
    const assignment = { ...PLAIN, id: String(index + 1), command: `job-${index}.sh`, to, from };
    return `${formatAssignment({ ...assignment, schedule: { kind: 'every', seconds: 3600 } })}\n`;
  });
  for (const [name, text] of Object.entries({ groups: groups.join(''), assignments: lines.join('') })) {
    writeFileSync(join(folder, name), text);
    utimesSync(join(folder, name), new Date(0), new Date(0));
  }
}

await main();
