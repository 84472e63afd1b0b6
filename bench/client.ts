// What the client costs: a whole `webjob -e` against the same job by hand, `curl` GET, run, `curl` PUT, through the same httpd in turn; and
// the start of the client and of its standalone executable against an empty Node script. Prints medians and ratios; asserts nothing.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startHttpd } from '../scripts/httpd.ts';
import { configure, makeSite, type Site, writeClientConf } from '../scripts/site.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/client.ts [--rounds N]

Milliseconds of one job by webjob beside the same by curl, and of the start of webjob beside that of an empty script.

  --rounds N  runs of each kind (default 100)
`;
const WARM_UP = 3;
const dist = join(import.meta.dirname, '..', 'dist');
const WEBJOB = join(dist, 'webjob');
const ALONE = join(dist, `webjob-${process.platform}-${process.arch}`);

/** What an administrator without webjob would put into cron. */
const BY_HAND = `set -e
cd "$1"
query='VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=host.sh'
curl --silent --fail --user client1:foo --header 'Content-Length: 0' --output by-hand.sh "$2?$query"
chmod 700 by-hand.sh
./by-hand.sh > out 2> err
echo Command=host.sh > env
cat out err env > body
length() { wc -c < "$1" | tr -d ' '; }
query="$query&RUNTYPE=snapshot&STDOUT_LENGTH=$(length out)&STDERR_LENGTH=$(length err)&STDENV_LENGTH=$(length env)"
curl --silent --fail --user client1:foo --upload-file body "$2?$query"
rm by-hand.sh out err env body
`;

interface Peer {
  name: string;
  command: [string, ...string[]];
  milliseconds: number[];
}

async function main(): Promise<void> {
  const flag = { rounds: { type: 'string', default: '100' }, help: { type: 'boolean', default: false } } as const;
  const { rounds, help } = parseArgs({ options: flag }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  if (!/^[1-9][0-9]{0,5}$/.test(rounds)) throw new RangeError('--rounds is a whole number from 1');
  const site = makeSite();
  try {
    configure(site, { PutNameFormat: '%cid_%jid', OverwriteExistingFiles: 'Y' });
    const server = await startHttpd({ site, mpm: 'event' });
    try {
      measure('start', startPeers(site), Number(rounds));
      measure('one job', jobPeers(site, server.url), Number(rounds));
    } finally {
      await server.stop();
    }
  } finally {
    site.remove();
  }
}

function startPeers(site: Site): Peer[] {
  const empty = join(site.root, 'empty.cjs');
  writeFileSync(empty, '');
  const alone: Peer[] = existsSync(ALONE)
    ? [{ name: 'standalone --version', command: [ALONE, '--version'], milliseconds: [] }]
    : [];
  return [
    { name: 'empty Node script', command: [process.execPath, empty], milliseconds: [] },
    { name: 'webjob --version', command: [process.execPath, WEBJOB, '--version'], milliseconds: [] },
    ...alone,
  ];
}

function jobPeers(site: Site, url: string): Peer[] {
  const conf = writeClientConf(site, url);
  // Nothing is left behind by either.
  writeFileSync(conf, readFileSync(conf, 'utf8').replaceAll('=N', '=Y'));
  const script = `${url}/webjob/nph-webjob.cgi`;
  const byHand: Peer['command'] = ['/bin/sh', '-c', BY_HAND, 'sh', join(site.root, 'client'), script];
  return [
    { name: 'curl GET; run; curl PUT', command: byHand, milliseconds: [] },
    { name: 'webjob -e', command: [process.execPath, WEBJOB, '-e', '-f', conf, 'host.sh'], milliseconds: [] },
  ];
}

function measure(title: string, peers: Peer[], rounds: number): void {
  for (let round = -WARM_UP; round < rounds; round++) {
    process.stderr.write(round % 50 === 0 ? `${title}: ${round} of ${rounds}\n` : '');
    for (const { name, command, milliseconds } of peers) {
      const [program, ...args] = command;
      const start = performance.now();
      const { status, error, stderr } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
      const took = performance.now() - start;
      if (error ?? status !== 0) throw new Error(`${name} ended with ${status}: ${error ?? stderr}`);
      if (round >= 0) milliseconds.push(took);
    }
  }
  print(title, peers);
}

function print(title: string, peers: Peer[]): void {
  const first = quantile(peers[0]?.milliseconds ?? [], 0.5);
  const rows = peers.map(({ name, milliseconds }) => {
    const median = quantile(milliseconds, 0.5);
    const times = [median, quantile(milliseconds, 0.99)].map((value) => value.toFixed(1).padStart(8));
    return `${name.padEnd(26)}${times.join('')}${(median / first).toFixed(2).padStart(10)}`;
  });
  const heading = `${title.padEnd(26)}  p50 ms  p99 ms     ratio`;
  process.stdout.write(`${[heading, ...rows].join('\n')}\n\n`);
}

await main();
