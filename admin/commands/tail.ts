// webjobctl tail: prints the end of the log in readable form, and with -f follows it across
// rotations.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { isSuccess, type LogLine } from 'webjob-protocol';
import { drained } from '../../cli/drained.ts';
import { formatBytes, paint, printJson, printLine, safeLine } from '../../cli/output.ts';
import { instantOf } from '../../ledger/instant.ts';
import { readLogLines } from '../../ledger/log.ts';
import { LOG } from '../../ledger/log-files.ts';
import { parseLimit } from '../jobs/options.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';

interface Options {
  lines: number;
  follow?: true;
}

const EXPLANATION = `
Example:
  webjobctl tail -n 50 -f

Exit codes:
  0  shown
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log cannot be read`;

export function tailCommand(): Command {
  return new Command('tail')
    .description('show the end of nph-webjob.log')
    .option('-n, --lines <NUMBER>', 'this many lines', parseLimit, 20)
    .option('-f, --follow', 'show lines as they are added, until Ctrl-C')
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) =>
      tail(openSite(command), options, globalOptions(command).json === true),
    );
}

async function tail(site: Site, { lines, follow }: Options, isJson: boolean): Promise<void> {
  const print = (line: LogLine): void => (isJson ? printJson(lineJson(site, line)) : printLine(formatLine(line)));
  const since = await findStart(site, lines);
  const last: LogLine[] = [];
  let isNew = false;
  const onFollow = (): void => {
    isNew = true;
    for (const line of last.splice(0)) print(line);
  };
  for await (const line of readLogLines(site, { since, follow, onFollow })) {
    if (isNew) {
      print(line);
      await drained();
      continue;
    }
    last.push(line);
    if (last.length > lines) last.shift();
  }
  for (const line of last) print(line);
}

/** Periods in seconds that are tried one after the other until one contains enough lines. */
const SPANS = [60, 3600, 86_400, 30 * 86_400];

/** A time since which there are at least so many lines; undefined for all of them. */
async function findStart(site: Site, lines: number): Promise<Date | undefined> {
  const newest = statSync(join(site.settings.logfilesDirectory, LOG), { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
  for (const span of SPANS) {
    const since = new Date(newest - span * 1000);
    let count = 0;
    for await (const _ of readLogLines(site, { since, isTrial: true })) if (++count >= lines) return since;
  }
  return undefined;
}

function lineJson(site: Site, line: LogLine): Record<string, unknown> {
  const { jobId, remoteUser, remoteAddress, method, clientId, fileName, bytesReceived } = line;
  return {
    at: instantOf(line, site).toISOString(),
    jobId: jobId ?? null,
    user: remoteUser ?? null,
    address: remoteAddress ?? null,
    method: method ?? null,
    client: clientId ?? null,
    command: fileName ?? null,
    bytesReceived: bytesReceived ?? null,
    bytesSent: line.bytesSent,
    seconds: line.seconds,
    status: line.status,
    message: line.message,
  };
}

/**
 * `2004-05-23 16:32:06 client1 GET host.sh 200 Success 19 B server_1_1085355126_00723`
 */
function formatLine(line: LogLine): string {
  const bytes = line.method === 'GET' ? line.bytesSent : line.bytesReceived;
  const answer = `${line.status} ${line.message}`;
  return [
    line.time,
    safeLine(line.clientId ?? '-').padEnd(12),
    `${safeLine(line.method ?? '-').padEnd(3)} ${safeLine(line.fileName ?? '-').padEnd(16)}`,
    formatBytes(bytes ?? 0).padStart(7),
    paint(safeLine(answer), isSuccess(line.status) ? 'green' : 'red'),
    paint(safeLine(line.jobId ?? '-'), 'dim'),
  ].join('  ');
}
