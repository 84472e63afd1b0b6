// The cost of the custody record: PUTs of several sizes with EnableCustody=N and =Y, under the same
// httpd and in turn, so that both run under the same conditions. Prints medians and their ratio;
// asserts nothing.
import { rmSync } from 'node:fs';
import { request } from 'node:http';
import { parseArgs } from 'node:util';
import { startHttpd } from '../scripts/httpd.ts';
import { makeSite, type Site } from '../scripts/site.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/custody.ts [--rounds N]

Measures the latency of a PUT under httpd, one at a time, with and without the custody record.

  --rounds N  requests of each kind (default 100)
`;
const SIZES = [1024, 100 * 1024, 10 * 1024 * 1024];
const WARM_UP = 5;

interface Peer {
  server: { port: number; stop(): Promise<void> };
  site: Site;
  milliseconds: number[][];
}

async function main(): Promise<void> {
  const flag = { rounds: { type: 'string', default: '100' }, help: { type: 'boolean', default: false } } as const;
  const { rounds, help } = parseArgs({ options: flag }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  if (!/^[1-9][0-9]{0,5}$/.test(rounds)) throw new RangeError('--rounds is a whole number from 1');
  for (const mpm of ['prefork', 'event'] as const) await measure(mpm, Number(rounds));
}

async function measure(mpm: 'prefork' | 'event', rounds: number): Promise<void> {
  const peers = [await startPeer(mpm, 'N'), await startPeer(mpm, 'Y')];
  try {
    for (let round = -WARM_UP; round < rounds; round++) {
      process.stderr.write(round % 50 === 0 ? `${mpm}: ${Math.max(0, round)} of ${rounds}\n` : '');
      for (const [index, size] of SIZES.entries()) {
        // The order alternates between rounds.
        for (const peer of round % 2 === 0 ? peers : peers.toReversed()) {
          const took = await put(peer.server.port, size, `bench_${round + WARM_UP}_${size}`);
          if (round >= 0) peer.milliseconds[index]?.push(took);
        }
      }
      if (round % 10 === 0) for (const { site } of peers) empty(site);
    }
  } finally {
    for (const { server, site } of peers) {
      await server.stop();
      site.remove();
    }
  }
  const [without, with_] = peers;
  for (const [index, size] of SIZES.entries()) {
    const medians = [without, with_].map((peer) => quantile(peer?.milliseconds[index] ?? [], 0.5));
    const [before = 0, after = 0] = medians;
    process.stdout.write(
      `${mpm.padEnd(8)} ${String(size).padStart(9)} bytes  without ${before.toFixed(1)} ms  with ${after.toFixed(1)} ms  ratio ${(after / before).toFixed(3)}\n`,
    );
  }
}

async function startPeer(mpm: 'prefork' | 'event', custody: 'Y' | 'N'): Promise<Peer> {
  const site = makeSite({ settings: { PutNameFormat: 'all/%jid', EnableCustody: custody } });
  return { site, server: await startHttpd({ site, mpm }), milliseconds: SIZES.map(() => []) };
}

function empty(site: Site): void {
  rmSync(`${site.incoming}/all`, { recursive: true, force: true });
}

/** Sends a PUT on a connection of its own; returns the milliseconds until its answer. */
function put(port: number, size: number, jobId: string): Promise<number> {
  const query = 'VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=kilobyte&RUNTYPE=snapshot';
  const body = Buffer.alloc(size, 'x');
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const asked = request({
      host: '127.0.0.1',
      port,
      method: 'PUT',
      agent: false,
      auth: 'client1:foo',
      path: `/webjob/nph-webjob.cgi?${query}&STDOUT_LENGTH=${size}&STDERR_LENGTH=0&STDENV_LENGTH=0`,
      headers: { 'Content-Length': size, 'Job-Id': jobId },
    });
    asked.on('error', reject).on('response', (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`PUT answered ${answer.statusCode}`));
      answer.resume().on('end', () => resolve(performance.now() - start));
    });
    asked.end(body);
  });
}

await main();
