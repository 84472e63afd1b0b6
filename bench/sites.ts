// The cost of one GET at different sites in comparison: as a CGI, and in a persistent worker behind
// mod_proxy_fcgi.
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { findProcesses, type ResidentSite, startWay } from '../scripts/resident.ts';
import { makeSite, type Site } from '../scripts/site.ts';
import { middle, timeRequest } from './one-request.ts';

const REQUESTS = 200;
const WARM_UP = 2;
/** The unit of the kernel's CPU time (sysconf(_SC_CLK_TCK) on Linux). */
const TICK_MS = 10;

/** A site, its request, and the limit in requests of the first one. */
export interface Contender {
  name: string;
  settings: Record<string, string>;
  fileName: string;
  /** Undefined for the one that all others are compared with. */
  limits?: { cgi: number; worker: number };
  /** Prepares what is special about the site. */
  prepare?(site: Site): void;
}

interface Place extends Contender {
  site: Site;
  served: ResidentSite;
  cgi: number[];
  worker: number[];
}

/**
 * Measures all sites in turn and prints the table; false when one exceeds its limit. Throws Error
 * for any answer but 200.
 */
export async function compareSites(contenders: readonly Contender[], rounds: number): Promise<boolean> {
  const places: Place[] = [];
  try {
    for (const contender of contenders) places.push(await open(contender));
    for (let round = -WARM_UP; round < rounds; round += 1)
      for (const place of round % 2 === 0 ? places : places.toReversed()) await measure(place, round);
    return report(places);
  } finally {
    for (const { served, site } of places) {
      await served.close();
      site.remove();
    }
  }
}

/** One worker each, so that all sites have the same number. */
async function open(contender: Contender): Promise<Place> {
  const site = makeSite({ resident: true, settings: { RequireUser: 'N', ...contender.settings } });
  contender.prepare?.(site);
  const served = await startWay('mod_proxy_fcgi', site, {}, ['--processes', '1']);
  return { ...contender, site, served, cgi: [], worker: [] };
}

async function measure({ name, fileName, site, served, cgi, worker }: Place, round: number): Promise<void> {
  const script = join(site.cgiDirectory, 'nph-webjob.cgi');
  const alone = timeRequest(site, { name, script, method: 'GET', jobId: `bench_${round}`, fileName });
  const before = readCpuMs(site);
  for (let index = 0; index < REQUESTS; index += 1) await ask(served.server.url, fileName);
  if (round < 0) return;
  cgi.push(alone);
  worker.push((readCpuMs(site) - before) / REQUESTS);
}

/** The CPU time of the persistent workers. */
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
function ask(url: string, fileName: string): Promise<void> {
  const headers = { Authorization: `Basic ${btoa('client1:foo')}`, 'Content-Length': 0 };
  const query = `VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=${fileName}`;
  return new Promise((resolve, reject) => {
    request(`${url}/webjob/nph-webjob.cgi?${query}`, { agent: false, headers }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`a GET was answered ${answer.statusCode}`));
      answer.resume().on('end', resolve);
    })
      .on('error', reject)
      .end();
  });
}

function report(places: readonly Place[]): boolean {
  const width = Math.max(...places.map(({ name }) => name.length)) + 2;
  const heading = ['CGI ms', 'ratio', 'limit', 'worker ms', 'ratio', 'limit'];
  process.stdout.write(`${'one GET'.padEnd(width)}${heading.map((text) => text.padStart(10)).join('')}\n`);
  let isGood = true;
  for (const place of places) {
    const cells = (['cgi', 'worker'] as const).flatMap((kind) => {
      const [own, first] = [middle(place[kind]), middle(places[0]?.[kind] ?? [])];
      const limit = place.limits?.[kind];
      if (limit !== undefined && own / first > limit) isGood = false;
      return [own.toFixed(3), (own / first).toFixed(3), limit?.toFixed(2) ?? ''];
    });
    process.stdout.write(`${place.name.padEnd(width)}${cells.map((cell) => cell.padStart(10)).join('')}\n`);
  }
  return isGood;
}
