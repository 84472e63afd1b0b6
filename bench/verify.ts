// The cost of webjobctl verify in lockers with small, typical and large uploads, compared with
// sha256sum on the same files in turn, so that both run under the same conditions. Prints rates,
// peak memory, and ratios; asserts nothing.
import { spawn } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { appendCustody, custodyPath, digestStreams, storeUpload } from 'webjob-locker';
import { formatEpoch, formatJobId, formatRecord, RECORD_FIELDS, type RecordField } from 'webjob-protocol';
import { makeSite, type Site } from '../scripts/site.ts';
import { residentKilobytes } from './footprint.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/verify.ts [--groups N] [--rounds N]

Compares webjobctl verify with sha256sum on three lockers, made by the code of the server:
  small   N uploads (default 10000) with half a KiB of output
  usual   N / 2 uploads with 4 to 64 KiB of output, every tenth with a tenth as much in err
  large   three uploads of 200 MB
All files are in the page cache. The first round does not count; the result is the median of the others (default 3).
Needs dist/ and Linux.
`;
const WEBJOBCTL = join(import.meta.dirname, '..', 'dist', 'webjobctl');

interface Cost {
  seconds: number;
  megabytes: number;
}

interface Stream {
  out: number;
  err: number;
}

/** Sizes of output, the same in every run. */
const LOCKERS: Record<string, (groups: number) => Stream[]> = {
  small: (groups) => Array.from({ length: groups }, () => ({ out: 512, err: 0 })),
  usual: (groups) =>
    Array.from({ length: Math.ceil(groups / 2) }, (_, index) => {
      const out = 4096 + ((index * 7919) % (60 * 1024));
      return { out, err: index % 10 === 0 ? Math.floor(out / 10) : 0 };
    }),
  large: () => Array.from({ length: 3 }, () => ({ out: 200_000_000, err: 0 })),
};

/** Output is not all zeros; for a digest all other bytes are alike. */
const noise = randomFillSync(Buffer.alloc(4 * 1024 * 1024));

function* takeNoise(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= noise.length) yield noise.subarray(0, Math.min(left, noise.length));
}

/** Stores a job as the server does: three streams, synced, then recorded, then announced. */
function storeJob(site: Site, index: number, { out, err }: Stream): void {
  const jobId = formatJobId({ serverId: 'server_1', epochSeconds: 1_793_491_200 + index, sequence: 1000 + index });
  const hashOf = (length: number): string => {
    const hash = createHash('md5');
    for (const piece of takeNoise(length)) hash.update(piece);
    return hash.digest('hex');
  };
  const known: Partial<Record<RecordField, string>> = {
    ClientId: 'client1',
    GetRequest: 'host.sh',
    Command: 'host.sh',
    Jid: jobId,
    KidStatus: '0',
    HashType: 'MD5',
    StdOutHash: hashOf(out),
    StdErrHash: hashOf(err),
    RunEpoch: formatEpoch(1_793_491_200_000_000, 'UTC'),
  };
  const fields = Object.fromEntries(RECORD_FIELDS.map((field) => [field, known[field] ?? 'NA']));
  const env = Buffer.from(formatRecord({ fields: fields as Record<RecordField, string>, extra: [] }));
  const lengths = { out, err, env: env.length };
  const source = digestStreams(readPieces([...takeNoise(out), ...takeNoise(err), env]), lengths);
  const name = `client${index % 500}_20261101000000_${String(index).padStart(5, '0')}_host.sh`;
  const custody = custodyPath(join(site.base, 'logfiles'), 'server_1');
  storeUpload({ base: join(site.incoming, name), jobId, lengths, overwrite: false }, source, () =>
    appendCustody(custody, {
      time: new Date(),
      event: 'deposit',
      pid: process.pid,
      name,
      clientId: 'client1',
      fileName: 'host.sh',
      address: '192.168.1.120',
      jobId,
      receivedAt: new Date(),
      bytes: lengths,
      sha256: source.digests(),
    }),
  );
}

function readPieces(pieces: Buffer[]): { read(buffer: Uint8Array): number } {
  let at = 0;
  return {
    read(buffer) {
      while (pieces[0] && at === pieces[0].length) [at] = [0, pieces.shift()];
      const count = pieces[0]?.copy(buffer, 0, at) ?? 0;
      at += count;
      return count;
    },
  };
}

/** Runs a command to its end; the memory is the largest resident size that was seen. */
function measure([program = '', ...args]: string[]): Promise<Cost> {
  const startedAt = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let [said, most] = ['', 0];
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  const look = setInterval(() => {
    most = Math.max(most, residentKilobytes(child.pid));
  }, 20);
  return new Promise((resolve, reject) => {
    child.on('error', reject).on('close', (code) => {
      clearInterval(look);
      if (code !== 0) reject(new Error(`${program} ended with ${code}: ${said}`));
      resolve({ seconds: (performance.now() - startedAt) / 1000, megabytes: most / 1024 });
    });
  });
}

async function compare(name: string, streams: Stream[], rounds: number): Promise<void> {
  const site = makeSite();
  try {
    process.stderr.write(`${name}: storing ${streams.length} groups\n`);
    for (const [index, stream] of streams.entries()) storeJob(site, index, stream);
    const files = readdirSync(site.incoming).map((file) => statSync(join(site.incoming, file)).size);
    const megabytes = files.reduce((sum, size) => sum + size, 0) / 1e6;
    const ours = [process.execPath, WEBJOBCTL, '--config', site.propertiesFile, 'verify'];
    const peer = ['sh', '-c', `find ${site.incoming} -type f -print0 | xargs -0 sha256sum`];
    const costs: { ours: Cost; peer: Cost }[] = [];
    for (let round = 0; round <= rounds; round++) costs.push({ ours: await measure(ours), peer: await measure(peer) });
    const counted = costs.slice(1);
    const seconds = quantile(
      counted.map((cost) => cost.ours.seconds),
      0.5,
    );
    const peerSeconds = quantile(
      counted.map((cost) => cost.peer.seconds),
      0.5,
    );
    const most = Math.max(...counted.map((cost) => cost.ours.megabytes));
    const columns = [
      streams.length,
      megabytes,
      seconds,
      megabytes / seconds,
      streams.length / seconds,
      most,
      peerSeconds,
    ];
    const digits = [0, 1, 2, 0, 0, 0, 2];
    const cells = columns.map((value, index) => value.toFixed(digits[index]).padStart(10));
    process.stdout.write(`${name.padEnd(6)}${cells.join('')}${(seconds / peerSeconds).toFixed(2).padStart(10)}\n`);
  } finally {
    site.remove();
  }
}

const options = {
  groups: { type: 'string', default: '10000' },
  rounds: { type: 'string', default: '3' },
  help: { type: 'boolean', default: false },
} as const;
const { values } = parseArgs({ options });
if (values.help) process.stdout.write(HELP);
else {
  const [groups, rounds] = [parseCount('groups', values.groups), parseCount('rounds', values.rounds)];
  const titles = ['groups', 'MB', 's', 'MB/s', 'groups/s', 'RSS MB', 'sha256sum', 'ratio'];
  process.stdout.write(`${''.padEnd(6)}${titles.map((title) => title.padStart(10)).join('')}\n`);
  for (const [name, plan] of Object.entries(LOCKERS)) await compare(name, plan(groups), rounds);
}
