// Attributes uploads that will be removed or archived: the same join as for jobs, over these
// uploads and the log lines with their job ids.
import { findJobIdParts, NOT_APPLICABLE } from 'webjob-protocol';
import { parseRecordFields } from './ending.ts';
import { joinUnit, LOCKER, type Located, type Upload, unitOfLine, unitOfUpload } from './join.ts';
import { readLogBlocks } from './log.ts';
import { compileNames, makeGuesser } from './names.ts';
import { whoseIs } from './read-upload.ts';
import type { Site } from './site.ts';
import { openKnownStore } from './store.ts';
import { parseLines, placeLine } from './writer.ts';

/** The known facts about an upload before its attribution. */
export type Unowned = Pick<Upload, 'name' | 'has' | 'at' | 'jobId'> & {
  /** The beginning of the run record, which may contain whatever the client likes. */
  record: string | undefined;
};

export interface Attribution {
  /** The client and command, when the log has them. */
  owner: { clientId: string; command: string } | undefined;
  /** Every client that has an accepted PUT with the upload's job id in the log. */
  clients: readonly string[];
}

/** How far a server's clock may have been set back between a job id and its log line. */
const CLOCK_MS = 3_600_000;

/** Attributes uploads; returns the result by name. Throws Failure `failed` when there is no log. */
export async function attribute(site: Site, uploads: readonly Unowned[]): Promise<ReadonlyMap<string, Attribution>> {
  const parseName = compileNames(site);
  const units = new Map<string, Upload[]>();
  for (const { name, has, at, jobId, record } of uploads) {
    const facts = { name, has, at, jobId, place: LOCKER, ending: undefined };
    const upload: Upload = { ...facts, ...whoseIs(parseName(name, jobId), () => parseRecordFields(record ?? '')) };
    const unit = unitOfUpload(upload);
    const same = units.get(unit);
    if (same) same.push(upload);
    else units.set(unit, [upload]);
  }
  const lines = await findLines(site, units);
  const guess = makeGuesser(site);
  const found = new Map<string, Attribution>();
  for (const [unit, same] of units) {
    // Only with an accepted PUT has the client proved its identity to httpd.
    const accepted = (lines.get(unit) ?? []).filter(({ line }) => line.method === 'PUT' && line.status === 200);
    const clients = [...new Set(accepted.flatMap(({ line }) => line.clientId ?? []))];
    for (const { job, lines: own, uploads } of joinUnit(accepted, same, guess)) {
      const { clientId, command } = job;
      const isTold = own.length > 0 && clientId !== undefined && command !== undefined;
      for (const { name } of uploads) found.set(name, { clients, owner: isTold ? { clientId, command } : undefined });
    }
  }
  return found;
}

/**
 * The log lines of these units, from the store or, without a store, from the logs since the
 * earliest possible time of a first request.
 */
async function findLines(site: Site, units: ReadonlyMap<string, readonly Upload[]>): Promise<Map<string, Located[]>> {
  const lines = new Map<string, Located[]>();
  const store = await openKnownStore(site);
  if (store) {
    try {
      const find = store.database.prepare('SELECT lines FROM jobs WHERE unit = ?');
      for (const unit of units.keys())
        lines.set(
          unit,
          find.all(unit).flatMap((row) => parseLines(site, row.lines as string)),
        );
    } finally {
      store.close();
    }
    return lines;
  }
  const since = beginOf([...units.values()].flat());
  for await (const block of readLogBlocks(site, { since, contains: ' PUT ' }))
    for (const { line, text } of block) {
      const located = placeLine(site, line, text);
      const unit = unitOfLine(located);
      if (!units.has(unit)) continue;
      const same = lines.get(unit);
      if (same) same.push(located);
      else lines.set(unit, [located]);
    }
  return lines;
}

/**
 * The earliest time at which one of the jobs may have begun. Undefined if a job id contains no
 * time, because the time of a copied file may be later than its log line.
 */
function beginOf(uploads: readonly Upload[]): Date | undefined {
  let begin = Number.POSITIVE_INFINITY;
  for (const { jobId, at } of uploads) {
    const epoch = jobId === undefined || jobId === NOT_APPLICABLE ? undefined : findJobIdParts(jobId)?.epochSeconds;
    if (epoch === undefined) return undefined;
    begin = Math.min(begin, epoch * 1000, at);
  }
  return Number.isFinite(begin) ? new Date(begin - CLOCK_MS) : undefined;
}
