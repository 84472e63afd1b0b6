// What hosts.access costs a request: CPU time of a GET at a site with a long list beside that of one at a site without, as a CGI and in a
// persistent worker behind mod_proxy_fcgi, in turn. Ends with 1 when a list costs more than it may.
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { findProcesses, type ResidentSite, startWay } from '../scripts/resident.ts';
import { makeSite, type Site } from '../scripts/site.ts';
import { middle, timeRequest } from './one-request.ts';
import { parseCount } from './options.ts';

const HELP = `Usage: node bench/hosts.ts [--rounds N] [--lines N]

CPU time of a GET in milliseconds with a hosts.access and without one, and the ratio of the two.

  --rounds N  runs as a CGI, and rounds of 200 requests in a worker (default 40)
  --lines N   of the list (default 50000)
`;
/** What a request with a list may cost, in requests without one. */
const LIMITS = { CGI: 2, FastCGI: 1.1 };
const REQUESTS = 200;
const WARM_UP = 2;
/** Of the kernel's count of CPU time (sysconf(_SC_CLK_TCK) on Linux). */
const TICK_MS = 10;
const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=host.sh';

interface Place {
  site: Site;
  served: ResidentSite;
  cgi: number[];
  worker: number[];
}

async function main(): Promise<void> {
  const known = {
    rounds: { type: 'string', default: '40' },
    lines: { type: 'string', default: '50000' },
    help: { type: 'boolean' },
  } as const;
  const { rounds, lines, help } = parseArgs({ options: known }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  const count = parseCount('rounds', rounds);
  const places = [await makePlace(undefined), await makePlace(parseCount('lines', lines))] as const;
  try {
    for (let round = -WARM_UP; round < count; round += 1)
      for (const place of round % 2 === 0 ? places : places.toReversed()) await measure(place, round);
    report(...places);
  } finally {
    for (const { served, site } of places) {
      await served.close();
      site.remove();
    }
  }
}

/** One worker, so that both sites serve with as many. */
async function makePlace(lines: number | undefined): Promise<Place> {
  const settings = { ...(lines !== undefined && { EnableHostAccessList: 'Y' }) };
  const site = makeSite({ resident: true, settings: { RequireUser: 'N', ...settings } });
  if (lines !== undefined) writeList(site, lines);
  const served = await startWay('mod_proxy_fcgi', site, {}, ['--processes', '1']);
  return { site, served, cgi: [], worker: [] };
}

/** As a site has it, that has not changed for a while; the client that asks is in the middle. */
function writeList(site: Site, lines: number): void {
  const path = join(site.base, 'config', 'nph-webjob', 'hosts.access');
  mkdirSync(dirname(path), { recursive: true });
  const clientOf = (index: number): string => (index === lines >> 1 ? 'client1' : `host-${index}`);
  const networkOf = (index: number): string =>
    index === lines >> 1 ? '127.0.0.0/8, ::1/128' : `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`;
  const text = Array.from({ length: lines }, (_, index) => `${clientOf(index)}=${networkOf(index)}\n`);
  writeFileSync(path, text.join(''));
  utimesSync(path, new Date(0), new Date(0));
}

async function measure({ site, served, cgi, worker }: Place, round: number): Promise<void> {
  const script = join(site.cgiDirectory, 'nph-webjob.cgi');
  const alone = timeRequest(site, { name: 'hosts.access', script, method: 'GET', jobId: `bench_${round}` });
  const before = readCpuMs(site);
  for (let index = 0; index < REQUESTS; index += 1) await ask(served.server.url);
  if (round < 0) return;
  cgi.push(alone);
  worker.push((readCpuMs(site) - before) / REQUESTS);
}

/** CPU time of the persistent processes. */
function readCpuMs(site: Site): number {
  const times = findProcesses(site).map((pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  });
  return times.reduce((sum, time) => sum + time, 0);
}

/** Rejects for any answer but 200. */
function ask(url: string): Promise<void> {
  const headers = { Authorization: `Basic ${btoa('client1:foo')}`, 'Content-Length': 0 };
  return new Promise((resolve, reject) => {
    request(`${url}/webjob/nph-webjob.cgi?${QUERY}`, { agent: false, headers }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`a GET was answered ${answer.statusCode}`));
      answer.resume().on('end', resolve);
    })
      .on('error', reject)
      .end();
  });
}

function report(without: Place, listed: Place): void {
  process.stdout.write(`${'one GET, CPU ms'.padEnd(16)} no list    list   ratio   limit\n`);
  for (const [name, kind] of [
    ['CGI', 'cgi'],
    ['FastCGI', 'worker'],
  ] as const) {
    const [one, other] = [middle(without[kind]), middle(listed[kind])];
    const cells = [one.toFixed(3), other.toFixed(3), (other / one).toFixed(3), LIMITS[name].toFixed(2)];
    process.stdout.write(`${name.padEnd(16)}${cells.map((cell) => cell.padStart(8)).join('')}\n`);
    if (other / one > LIMITS[name]) process.exitCode = 1;
  }
}

await main();
