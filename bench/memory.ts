// Peak memory of client and CGI while one job brings 1 GiB down and puts 1 GiB up. Prints MB; asserts nothing.
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { startHttpd } from '../scripts/httpd.ts';
import { addCommand, makeSite, type Site, writeClientConf } from '../scripts/site.ts';

const GIBIBYTE = 1024 ** 3;
const webjob = join(import.meta.dirname, '..', 'dist', 'webjob');

/** A program of 1 GiB that prints 1 GiB; the shell never reads the zeros behind `exit`. */
function addLargeCommand(site: Site): void {
  const path = addCommand(site, 'client1', 'large.sh', `#!/bin/sh\nhead -c ${GIBIBYTE} /dev/zero\nexit 0\n`);
  const file = openSync(path, 'r+');
  ftruncateSync(file, GIBIBYTE);
  closeSync(file);
}

/** NODE_OPTIONS that make every Node write its peak to `log` as it ends. */
function reportPeak(site: Site, log: string): string {
  const hook = join(site.root, 'peak.cjs');
  const report = `require('node:fs').appendFileSync(${JSON.stringify(log)}, process.resourceUsage().maxRSS + ' ' + (process.env.REQUEST_METHOD ?? 'client') + '\\n')`;
  writeFileSync(hook, `process.on('exit', () => ${report});\n`);
  appendFileSync(log, '', { mode: 0o666 });
  return `--require=${hook}`;
}

const site = makeSite();
const log = join(site.incoming, 'peak.log');
process.umask(0);
const options = reportPeak(site, log);
process.umask(0o022);
addLargeCommand(site);
for (const mpm of ['prefork', 'event'] as const) {
  const server = await startHttpd({ site, mpm, after: `SetEnv NODE_OPTIONS "${options}"` });
  try {
    const conf = writeClientConf(site, server.url);
    writeFileSync(conf, readFileSync(conf, 'utf8').replaceAll('=N', '=Y'));
    process.stderr.write(`${mpm}: 1 GiB down, 1 GiB up\n`);
    const start = performance.now();
    const run = spawnSync(process.execPath, [webjob, '--execute', '--file', conf, 'large.sh'], {
      env: { ...process.env, NODE_OPTIONS: options },
      stdio: 'inherit',
    });
    const seconds = (performance.now() - start) / 1000;
    const stored = readdirSync(site.incoming).filter((name) => name.endsWith('.out'));
    const bytes = stored.map((name) => statSync(join(site.incoming, name)).size);
    process.stdout.write(`${mpm}: exit ${run.status}, stored ${bytes.join(', ')} bytes, ${seconds.toFixed(1)} s\n`);
  } finally {
    await server.stop();
  }
}
for (const line of readFileSync(log, 'utf8').trimEnd().split('\n')) {
  const [kilobytes, who] = line.split(' ');
  process.stdout.write(`${String(who).padEnd(8)}${(Number(kilobytes) / 1024).toFixed(0).padStart(5)} MB at most\n`);
}
site.remove();
