// The cost of the client: a whole `webjob -e` compared with the same job by hand (`curl` GET, run,
// `curl` PUT) through the same httpd in turn; the start of the client and of its standalone
// executable compared with an empty Node script; and the CPU time of a job compared with another
// build, or with its manifest verified and its result signed compared with neither. Prints medians
// and ratios; asserts nothing.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { startHttpd } from '../scripts/httpd.ts';
import { configure, makeSite, type Site, writeClientConf } from '../scripts/site.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/client.ts [--rounds N] [--against FILE | --manifest]

Measures the milliseconds of one job with webjob and with curl, and of the start of webjob and of an empty script.

  --rounds N      runs of each kind (default 100)
  --against FILE  another webjob; measure only the CPU time of one job with each
  --manifest      measure only the CPU time of one job, plain, with DsvVerifyManifest=Y and with ResultKeyFile
`;
const WARM_UP = 3;
const dist = join(import.meta.dirname, '..', 'dist');
const WEBJOB = join(dist, 'webjob');
const ALONE = join(dist, `webjob-${process.platform}-${process.arch}`);

/** Prints the user and system time of a command. */
const TIMED = 'TIMEFORMAT="%3U %3S"; time "$0" "$@" < /dev/null > /dev/null';

/** The job by hand, as an administrator without webjob would run it from cron. */
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
  const known = {
    rounds: { type: 'string', default: '100' },
    against: { type: 'string' },
    manifest: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  } as const;
  const { rounds: count, against, manifest, help } = parseArgs({ options: known }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  const rounds = parseCount('rounds', count);
  const site = makeSite();
  try {
    configure(site, { PutNameFormat: '%cid_%jid', OverwriteExistingFiles: 'Y' });
    const server = await startHttpd({ site, mpm: 'event' });
    try {
      const conf = writeQuietConf(site, server.url);
      if (manifest) {
        measure('CPU of one job', manifestPeers(site, conf), rounds, cpuTime);
      } else if (against === undefined) {
        measure('start', startPeers(site), rounds, wallTime);
        measure('one job', jobPeers(site, server.url, conf), rounds, wallTime);
      } else {
        measure('CPU of one job', buildPeers(conf, resolve(against)), rounds, cpuTime);
      }
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

/** A configuration with which a job leaves no files behind. */
function writeQuietConf(site: Site, url: string): string {
  const conf = writeClientConf(site, url);
  writeFileSync(conf, readFileSync(conf, 'utf8').replaceAll('=N', '=Y'));
  return conf;
}

function jobPeers(site: Site, url: string, conf: string): Peer[] {
  const script = `${url}/webjob/nph-webjob.cgi`;
  const byHand: Peer['command'] = ['/bin/sh', '-c', BY_HAND, 'sh', join(site.root, 'client'), script];
  return [
    { name: 'curl GET; run; curl PUT', command: byHand, milliseconds: [] },
    { name: 'webjob -e', command: jobBy(WEBJOB, conf), milliseconds: [] },
  ];
}

function buildPeers(conf: string, other: string): Peer[] {
  return [
    { name: 'the other webjob', command: jobBy(other, conf), milliseconds: [] },
    { name: 'this webjob', command: jobBy(WEBJOB, conf), milliseconds: [] },
  ];
}

/** The same job with a program signed by two keys, both verified by the client. */
function manifestPeers(site: Site, conf: string): Peer[] {
  const folder = join(site.root, 'keys');
  mkdirSync(folder);
  const program = join(site.profiles, 'client1', 'host.sh');
  for (const [command, name] of [
    ['payload', 'alice'],
    ['add', 'bob'],
  ] as const) {
    sign(folder, 'keygen', name);
    sign(folder, command, '--key', `${name}.key`, program);
    sign(folder, 'trust', 'add', 'trusted', `${name}.vkey`);
  }
  const checking = join(site.root, 'client', 'manifest.conf');
  const files = `DsvTrustedKeysFile=${join(folder, 'trusted')}\nDsvSerialFile=${join(folder, 'serials')}\n`;
  writeFileSync(checking, `${readFileSync(conf, 'utf8')}DsvVerifyManifest=Y\nDsvThreshold=2\n${files}`, {
    mode: 0o600,
  });
  const signing = join(site.root, 'client', 'result.conf');
  writeFileSync(signing, `${readFileSync(checking, 'utf8')}ResultKeyFile=${join(folder, 'alice.key')}\n`, {
    mode: 0o600,
  });
  return [
    { name: 'webjob -e', command: jobBy(WEBJOB, conf), milliseconds: [] },
    { name: 'with a manifest', command: jobBy(WEBJOB, checking), milliseconds: [] },
    { name: 'and a result key', command: jobBy(WEBJOB, signing), milliseconds: [] },
  ];
}

function sign(cwd: string, ...words: string[]): void {
  const { status, stderr } = spawnSync(process.execPath, [join(dist, 'webjobctl'), 'sign', ...words], { cwd });
  if (status !== 0) throw new Error(`webjobctl sign ${words.join(' ')}: ${stderr}`);
}

function jobBy(webjob: string, conf: string): Peer['command'] {
  return [process.execPath, webjob, '-e', '-f', conf, 'host.sh'];
}

/** Every other round runs backwards, so that no peer always runs after the same one. */
function measure(title: string, peers: readonly Peer[], rounds: number, run: (peer: Peer) => number): void {
  for (let round = -WARM_UP; round < rounds; round++) {
    process.stderr.write(round % 50 === 0 ? `${title}: ${round} of ${rounds}\n` : '');
    for (const peer of round % 2 === 0 ? peers : peers.toReversed()) {
      const took = run(peer);
      if (round >= 0) peer.milliseconds.push(took);
    }
  }
  print(title, peers);
}

function wallTime({ name, command: [program, ...args] }: Peer): number {
  const start = performance.now();
  const { status, error, stderr } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const took = performance.now() - start;
  if (error ?? status !== 0) throw new Error(`${name} ended with ${status}: ${error ?? stderr}`);
  return took;
}

/** The CPU time of the command and its children. */
function cpuTime({ name, command }: Peer): number {
  const { status, stderr } = spawnSync('bash', ['--norc', '-c', TIMED, ...command], { encoding: 'utf8' });
  const [user = Number.NaN, system = Number.NaN] = stderr.trim().split(' ').map(Number);
  if (status !== 0 || Number.isNaN(user + system)) throw new Error(`${name} ended with ${status}: ${stderr}`);
  return (user + system) * 1000;
}

function print(title: string, peers: readonly Peer[]): void {
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
