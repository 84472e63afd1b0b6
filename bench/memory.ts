// Peak memory of client and CGI while one job downloads gigabytes and uploads as many. Prints MB;
// asserts nothing.
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startHttpd } from '../scripts/httpd.ts';
import { addCommand, makeSite, type Site, writeClientConf } from '../scripts/site.ts';

const HELP = `Usage: node bench/memory.ts [--gib N]

Measures the peak memory of client and CGI while one job fetches a program of N GiB that prints N GiB.

  --gib N  size in GiB, from 1 to 16 (default 1)
`;
const webjob = join(import.meta.dirname, '..', 'dist', 'webjob');

/**
 * A program of this size that prints as many bytes; the shell does not read the zeros after `exit`.
 */
function addLargeCommand(site: Site, bytes: number): void {
  const path = addCommand(site, 'client1', 'large.sh', `#!/bin/sh\nhead -c ${bytes} /dev/zero\nexit 0\n`);
  const file = openSync(path, 'r+');
  ftruncateSync(file, bytes);
  closeSync(file);
}

/** NODE_OPTIONS that make every Node append its peak memory to `log` when it ends. */
function reportPeak(site: Site, log: string): string {
  const hook = join(site.root, 'peak.cjs');
  const report = `require('node:fs').appendFileSync(${JSON.stringify(log)}, process.resourceUsage().maxRSS + ' ' + (process.env.REQUEST_METHOD ?? 'client') + '\\n')`;
  writeFileSync(hook, `process.on('exit', () => ${report});\n`);
  appendFileSync(log, '', { mode: 0o666 });
  return `--require=${hook}`;
}

async function main(): Promise<void> {
  const flag = { gib: { type: 'string', default: '1' }, help: { type: 'boolean', default: false } } as const;
  const { gib, help } = parseArgs({ options: flag }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  if (!/^(?:[1-9]|1[0-6])$/.test(gib)) throw new RangeError('--gib is a whole number from 1 to 16');
  const site = makeSite();
  try {
    const log = join(site.incoming, 'peak.log');
    process.umask(0);
    const options = reportPeak(site, log);
    process.umask(0o022);
    addLargeCommand(site, Number(gib) * 1024 ** 3);
    for (const mpm of ['prefork', 'event'] as const) {
      process.stderr.write(`${mpm}: ${gib} GiB down, ${gib} GiB up\n`);
      await runJob(site, mpm, options);
    }
    for (const line of readFileSync(log, 'utf8').trimEnd().split('\n')) {
      const [kilobytes, who] = line.split(' ');
      process.stdout.write(`${String(who).padEnd(8)}${(Number(kilobytes) / 1024).toFixed(0).padStart(5)} MB at most\n`);
    }
  } finally {
    site.remove();
  }
}

async function runJob(site: Site, mpm: 'prefork' | 'event', options: string): Promise<void> {
  const server = await startHttpd({ site, mpm, after: `SetEnv NODE_OPTIONS "${options}"` });
  try {
    const conf = writeClientConf(site, server.url);
    writeFileSync(conf, readFileSync(conf, 'utf8').replaceAll('=N', '=Y'));
    const start = performance.now();
    const run = spawnSync(process.execPath, [webjob, '--execute', '--file', conf, 'large.sh'], {
      env: { ...process.env, NODE_OPTIONS: options },
      stdio: 'inherit',
    });
    const seconds = (performance.now() - start) / 1000;
    const stored = readdirSync(site.incoming).filter((name) => name.endsWith('.out'));
    const bytes = stored.map((name) => statSync(join(site.incoming, name)).size);
    process.stdout.write(`${mpm}: exit ${run.status}, stored ${bytes.join(', ')} bytes, ${seconds.toFixed(1)} s\n`);
    for (const name of stored) rmSync(join(site.incoming, name));
  } finally {
    await server.stop();
  }
}

await main();
