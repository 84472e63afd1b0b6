// The cost of one request to a CGI: CPU time of a GET, of one with a manifest, and of a PUT,
// compared with an empty nph script in Node in turn, and with another build of the script when one
// is given. Start-up is most of it, so this keeps the script small. Exits with 1 when a GET exceeds
// its limit.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { MAX_MANIFEST_BYTES } from 'webjob-protocol';
import { addCommand, makeSite, type Site } from '../scripts/site.ts';
import { middle, timeRequest } from './one-request.ts';
import { parseCount } from './options.ts';
import { EMPTY_NODE } from './peers.ts';

const HELP = `Usage: node bench/request.ts [--rounds N] [--against FILE]

Measures the CPU time of one request in milliseconds, and its ratio to that of an empty nph script in Node. Each is the
mean of the middle half of the runs.

  --rounds N      runs of each kind (default 200)
  --against FILE  another nph-webjob.cgi to compare with
`;
/** The limit for a GET, in empty scripts. */
const LIMIT = 1.25;
const WARM_UP = 3;
/** A command with a manifest of maximum length. */
const SIGNED = 'signed.sh';
interface Kind {
  name: string;
  script: string;
  method: 'GET' | 'PUT';
  fileName?: string;
  /** The CPU time of each run. */
  milliseconds: number[];
}

function main(): void {
  const known = {
    rounds: { type: 'string', default: '200' },
    against: { type: 'string' },
    help: { type: 'boolean' },
  } as const;
  const { rounds, against, help } = parseArgs({ options: known }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  const site = makeSite({ settings: { RequireUser: 'N', PutNameFormat: '%cid_%jid' } });
  try {
    addCommand(site, 'client1', SIGNED, readFileSync(join(site.profiles, 'client1', 'host.sh')));
    writeFileSync(join(site.profiles, 'client1', `${SIGNED}.manifest`), Buffer.alloc(MAX_MANIFEST_BYTES, 'x'));
    const kinds = listKinds(site, against);
    measure(site, kinds, parseCount('rounds', rounds));
    process.stdout.write(formatKinds(kinds));
    const [empty, get] = kinds.map(({ milliseconds }) => middle(milliseconds));
    if (empty === undefined || get === undefined || get / empty > LIMIT) process.exitCode = 1;
  } finally {
    site.remove();
  }
}

/** The empty script first, then the GET that has the limit. */
function listKinds(site: Site, against: string | undefined): Kind[] {
  const empty = join(site.cgiDirectory, 'nph-empty-node.cgi');
  writeFileSync(empty, EMPTY_NODE);
  chmodSync(empty, 0o755);
  const builds = { webjob: join(site.cgiDirectory, 'nph-webjob.cgi'), ...(against && { other: resolve(against) }) };
  const requests = (['GET', 'PUT'] as const).flatMap((method) =>
    Object.entries(builds).map(
      ([name, script]): Kind => ({ name: `${name} ${method}`, script, method, milliseconds: [] }),
    ),
  );
  const signed: Kind = {
    name: 'GET, manifest',
    script: builds.webjob,
    method: 'GET',
    fileName: SIGNED,
    milliseconds: [],
  };
  return [{ name: 'empty Node script', script: empty, method: 'GET', milliseconds: [] }, ...requests, signed];
}

/** Every other round runs backwards, so that no kind always runs after the same one. */
function measure(site: Site, kinds: readonly Kind[], rounds: number): void {
  for (let round = -WARM_UP; round < rounds; round += 1) {
    if (round % 50 === 0) process.stderr.write(`${round} of ${rounds}\n`);
    for (const kind of round % 2 === 0 ? kinds : kinds.toReversed()) {
      const took = timeRequest(site, { ...kind, jobId: `bench_${kinds.indexOf(kind)}_${round}` });
      if (round >= 0) kind.milliseconds.push(took);
    }
  }
}

function formatKinds(kinds: readonly Kind[]): string {
  const empty = middle(kinds[0]?.milliseconds ?? []);
  const rows = kinds.map(({ name, milliseconds }, index) => {
    const own = middle(milliseconds);
    const limit = index === 1 ? `  limit ${LIMIT.toFixed(2)}` : '';
    return `${name.padEnd(20)}${own.toFixed(2).padStart(8)}${(own / empty).toFixed(3).padStart(8)}${limit}\n`;
  });
  return `${'one request'.padEnd(20)}  CPU ms   ratio\n${rows.join('')}`;
}

main();
