// Checks the other servers of a site, as far as this server can see them, and the clock: job ids
// that were issued twice, times in the future.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { listCustodyFiles } from 'webjob-locker';
import { findJobIdParts, parseLogLine } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { countOf } from '../../cli/counts.ts';
import { WRITER } from '../../evidence/events.ts';
import { serversOf } from '../../ledger/site.ts';
import { askProgram } from '../site/programs.ts';
import { error, type Finding, note, warning } from './finding.ts';

/** The number of bytes read from the end of the log. */
const TAIL_BYTES = 8_000_000;
const AHEAD_MS = 120_000;

export function checkNodes(settings: ServerSettings): Finding[] {
  const log = join(settings.logfilesDirectory, 'nph-webjob.log');
  const named = serversOf(settings).slice(1);
  const logs = [settings, ...named].map(({ logfilesDirectory }) => join(logfilesDirectory, 'nph-webjob.log'));
  const issued = readIssued(new Set(logs));
  const twice = [...issued].filter(([, count]) => count > 1).map(([jobId]) => jobId);
  const ids = new Set(
    [...issued.keys()].map((jobId) => findJobIdParts(jobId)?.serverId).filter((id) => id !== undefined),
  );
  const known = new Set([settings.serverId, ...named.map(({ serverId }) => serverId)]);
  const others = [...new Set([...ids, ...readNodes(settings)])].filter((id) => !known.has(id)).sort();
  return [
    ...twice
      .slice(0, 1)
      .map((jobId) =>
        error(
          `${countOf(twice.length, 'job id was', 'job ids were')} issued twice, such as ${jobId}: two servers have the same ServerId`,
          log,
          'give every server that shares the locker a ServerId of its own',
        ),
      ),
    ...(named.length > 0 ? [note(`other servers of the site: ${[...known].slice(1).join(', ')}`, 'SiteServers')] : []),
    ...(others.length > 0 ? [note(`servers with other ids have written here: ${others.join(', ')}`, log)] : []),
    ...(named.length + others.length === 0
      ? [
          note(
            `no sign of another server; a server that shares the locker needs a ServerId other than ${settings.serverId}`,
            log,
          ),
        ]
      : []),
    ...checkClock(issued, log),
  ];
}

/**
 * How often each job id was issued with a GET. A process issues an id once, so an id issued twice
 * means two machines.
 */
function readIssued(logs: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of [...logs].flatMap(readTail)) {
    try {
      const { method, jobId } = parseLogLine(text);
      if (method === 'GET' && jobId !== undefined) counts.set(jobId, (counts.get(jobId) ?? 0) + 1);
    } catch {
      // verify reports malformed lines.
    }
  }
  return counts;
}

function readTail(path: string): string[] {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return [];
  }
  try {
    const { size } = fstatSync(fd);
    const buffer = Buffer.alloc(Math.min(size, TAIL_BYTES));
    const length = readSync(fd, buffer, 0, buffer.length, size - buffer.length);
    return buffer.toString('latin1', 0, length).split('\n');
  } finally {
    closeSync(fd);
  }
}

/** The servers with a custody record here. webjobctl has one too, but is not a server. */
function readNodes({ logfilesDirectory }: ServerSettings): string[] {
  try {
    return listCustodyFiles(logfilesDirectory)
      .map(({ serverId }) => serverId)
      .filter((id) => id !== WRITER);
  } catch {
    return [];
  }
}

function checkClock(issued: ReadonlyMap<string, number>, log: string): Finding[] {
  const latest = [...issued.keys()].reduce((max, jobId) => Math.max(max, findJobIdParts(jobId)?.epochSeconds ?? 0), 0);
  const ahead = latest * 1000 - Date.now();
  const synchronized = askSynchronized();
  return [
    ...(ahead > AHEAD_MS
      ? [
          error(
            `the log has a job ${Math.round(ahead / 1000)} s in the future: this clock or another server's is wrong`,
            log,
            'timedatectl set-ntp true',
          ),
        ]
      : []),
    ...(synchronized === 'no'
      ? [warning('the clock is not synchronized', 'timedatectl', 'timedatectl set-ntp true')]
      : []),
  ];
}

/** systemd's answer; undefined when it gives none. */
function askSynchronized(): string | undefined {
  try {
    return /^NTPSynchronized=(yes|no)$/m.exec(askProgram('timedatectl', ['show', '-p', 'NTPSynchronized']).stdout)?.[1];
  } catch {
    return undefined;
  }
}
