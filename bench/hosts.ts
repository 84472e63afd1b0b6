// The cost of hosts.access: CPU time of a GET at a site with a long list compared with a site
// without one. Exits with 1 when a list exceeds its limit.
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Site } from '../scripts/site.ts';
import { parseCount } from './options.ts';
import { compareSites } from './sites.ts';

const HELP = `Usage: node bench/hosts.ts [--rounds N] [--lines N]

Measures the CPU time of a GET in milliseconds with and without a hosts.access, and the ratio of the two.

  --rounds N  runs as a CGI, and rounds of 200 requests in a worker (default 40)
  --lines N   lines of the list (default 50000)
`;

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
  const count = parseCount('lines', lines);
  const fileName = 'host.sh';
  const isGood = await compareSites(
    [
      { name: 'without a list', settings: {}, fileName },
      {
        name: `${count} lines`,
        settings: { EnableHostAccessList: 'Y' },
        fileName,
        limits: { cgi: 2, worker: 1.1 },
        prepare: (site) => writeList(site, count),
      },
    ],
    parseCount('rounds', rounds),
  );
  if (!isGood) process.exitCode = 1;
}

/** The list is as old as at a real site, and the requesting client is in the middle. */
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

await main();
