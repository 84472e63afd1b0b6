// webjobctl pack: moves the uploads of old days into one compressed archive for each day, from
// which every upload can still be read alone.
import { Command } from 'commander';
import { makeFolder } from 'webjob-locker/durable';
import { packsFolder } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { parseDuration } from '../../cli/durations.ts';
import { formatBytes, printJson, printLine, startProgress, warn } from '../../cli/output.ts';
import { findHold, readHolds } from '../retention/holds.ts';
import { type Made, PackBatch, recoverParts } from '../retention/pack-making.ts';
import { settlePacks } from '../retention/pack-settling.ts';
import { removeDescribed } from '../retention/removal.ts';
import { attributeUploads, dayOf, type Scanned, scanLocker } from '../retention/scan.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

interface Options {
  olderThan: number;
  dryRun?: true;
}

const EXPLANATION = `
Archives each day that ended longer than DURATION ago in packed/DAY.tar.gz below BaseDirectory; DAY.jsonl beside it is
its manifest. The originals are removed when the archive was read back, is on disk, and is recorded. Uploads on hold
stay. tar xzf unpacks an archive; webjobctl unpack restores a day.

Examples:
  webjobctl pack --older-than 30d --dry-run
  webjobctl pack --older-than 30d

Exit codes:
  0  done
  1  done, but some uploads could not be archived
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written, or another webjobctl is running`;

export function packCommand(): Command {
  return new Command('pack')
    .description('archive old days')
    .requiredOption('--older-than <DURATION>', 'archive days that ended longer ago, as in 30d', parseDuration)
    .option('--dry-run', 'only list the days that would be archived')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) => pack(openSite(command), options, globalOptions(command)));
}

async function pack(site: Site, { olderThan, dryRun }: Options, { json }: { json?: true }): Promise<void> {
  const { settings } = site;
  const limit = Date.now() - olderThan * 1000;
  if (dryRun) {
    await withSiteLock(settings, undefined, async () => {
      for (const [day, groups] of groupByDay(site, await findFree(site, limit, false))) printPlan(day, groups, json);
    });
    return;
  }
  await withSiteLock(settings, 'keep', async () => {
    makeFolder(packsFolder(settings));
    await recoverParts(settings);
    const free = await findFree(site, limit, true);
    const settled = await settlePacks(settings, free);
    const rest = free.filter(({ name }) => !settled.has(name));
    await packDays(site, groupByDay(site, rest), json);
  });
}

/** Where summer time ends at midnight, a later time can be of an earlier day. */
const CLOCK_MS = 3 * 3_600_000;

/** Uploads older than the day of `limit` that no process is writing and no hold covers. */
async function findFree(site: Site, limit: number, isTidying: boolean): Promise<Scanned[]> {
  const { settings } = site;
  const firstDay = dayOf(limit, settings);
  const groups = [
    ...scanLocker(settings.incomingDirectory, { before: limit + CLOCK_MS, isTidying, isUnmeasured: isTidying }),
  ].filter((group) => !group.isLocked && dayOf(group.at, settings) < firstDay);
  if (groups.length > 0) await attributeUploads(site, groups);
  const holds = readHolds(settings);
  return groups.filter((group) => findHold(holds, group) === undefined);
}

function groupByDay({ settings }: Site, groups: readonly Scanned[]): [string, Scanned[]][] {
  const days = new Map<string, Scanned[]>();
  for (const group of groups) {
    if (!group.isComplete) continue;
    const day = dayOf(group.at, settings);
    const same = days.get(day);
    if (same) same.push(group);
    else days.set(day, [group]);
  }
  return [...days].sort(([a], [b]) => (a < b ? -1 : 1));
}

async function packDays({ settings }: Site, days: [string, Scanned[]][], json: true | undefined): Promise<void> {
  const progress = startProgress(
    'uploads',
    days.reduce((sum, [, groups]) => sum + groups.length, 0),
  );
  const batch = new PackBatch(settings);
  const removeAll = (made: readonly Made[]): void => {
    progress.end();
    removeOriginals(settings, made, new Map(days), json);
  };
  try {
    for (const [day, groups] of days) {
      await batch.add(day, groups, () => progress.advance());
      if (batch.isFull) await batch.finish(removeAll);
    }
  } finally {
    await batch.finish(removeAll);
  }
}

/** The number of uploads that are locked at once. */
const LOCKED = 1000;

function removeOriginals(
  settings: ServerSettings,
  made: readonly Made[],
  days: ReadonlyMap<string, readonly Scanned[]>,
  json: true | undefined,
): void {
  // A hold that was set during the scan counts.
  const holds = readHolds(settings);
  const going = made.flatMap(({ pack, packed }) => {
    const byName = new Map(days.get(pack.day)?.map((group) => [group.name, group]));
    return packed.filter(({ name }) => {
      const group = byName.get(name);
      return group !== undefined && findHold(holds, group) === undefined;
    });
  });
  const stay = new Set<string>();
  for (let at = 0; at < going.length; at += LOCKED)
    for (const name of removeDescribed(settings.incomingDirectory, going.slice(at, at + LOCKED))) stay.add(name);
  for (const { pack, end, packed, left } of made) {
    if (end) printMade(pack.day, pack.name, end, json);
    const all = [...left, ...packed.flatMap(({ name }) => (stay.has(name) ? name : []))];
    if (all.length === 0) continue;
    warn(`${pack.day}: incomplete uploads, and uploads being changed, stay: ${all.length}, first ${all[0]}`);
    process.exitCode = 1;
  }
}

function printPlan(day: string, groups: readonly Scanned[], json: true | undefined): void {
  const bytes = groups.reduce((sum, group) => sum + group.bytes, 0);
  if (json) printJson({ day, groups: groups.length, bytes, dryRun: true });
  else
    printLine(
      `${day}  ${String(groups.length).padStart(7)} uploads  ${formatBytes(bytes).padStart(8)}  would be archived`,
    );
}

function printMade(
  day: string,
  name: string,
  end: { groups: number; archiveBytes: number; archiveSha256: string },
  json: true | undefined,
): void {
  if (json) printJson({ day, pack: name, ...end });
  else
    printLine(
      `${day}  ${String(end.groups).padStart(7)} uploads  ${formatBytes(end.archiveBytes).padStart(8)}  ${name}.tar.gz`,
    );
}
