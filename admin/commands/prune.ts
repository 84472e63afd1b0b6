// webjobctl prune: removes uploads that the operator's rule selects and no hold covers, and records
// them.
import { createInterface } from 'node:readline/promises';
import { Command } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { parseDuration } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { formatBytes, printJson, printLine, safeLine, say, startProgress, warn } from '../../cli/output.ts';
import { parseCount, parseSize } from '../../cli/sizes.ts';
import { BATCH, readEvents, recordEvent } from '../../evidence/events.ts';
import { findHold, readHolds } from '../retention/holds.ts';
import { findOldPacks, finishPackRemovals, type OldPacks, prunePack } from '../retention/pack-removing.ts';
import { type Described, describeGroup, finishRemoval, removeDescribed } from '../retention/removal.ts';
import { formatRule, type Rule, type Selection, selectGroups } from '../retention/rule.ts';
import { attributeUploads, readJobId, type Scanned, scanLocker } from '../retention/scan.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

interface Options {
  olderThan?: number;
  keep?: number;
  maxBytes?: number;
  incomplete?: true;
  dryRun?: true;
  yes?: true;
}

const EXPLANATION = `
Removes an upload only when every given rule allows it. Uploads on hold (webjobctl hold) and uploads in progress stay.
The age is that of the .rdy file; an archive is removed as a whole, by --older-than alone. The log decides which client
an upload belongs to; --keep does not touch uploads that are not in the log.

Examples:
  webjobctl prune --older-than 90d --dry-run
  webjobctl prune --older-than 90d --keep 5 --yes

Exit codes:
  0  done
  1  done, but a selected upload is being written, or too little can be removed for --max-bytes
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or removed, or another webjobctl is running`;

export function pruneCommand(): Command {
  return new Command('prune')
    .description('remove old uploads from the locker')
    .option('--older-than <DURATION>', 'remove uploads older than this, as in 90d', parseDuration)
    .option('--keep <NUMBER>', 'keep this many of the newest of every client and command', parseCount)
    .option('--max-bytes <SIZE>', 'remove the oldest until the locker is at most this large, as in 20G', parseSize)
    .option('--incomplete', 'also remove incomplete uploads (streams without .rdy)')
    .option('--dry-run', 'only list what would be removed')
    .option('--yes', 'do not ask')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) => prune(openSite(command), options, globalOptions(command)));
}

async function prune(site: Site, options: Options, { json }: { json?: true }): Promise<void> {
  const { settings } = site;
  const rule = ruleOf(options);
  await withSiteLock(settings, options.dryRun ? undefined : 'keep', async () => {
    const isTidying = !options.dryRun;
    const found = [...scanLocker(settings.incomingDirectory, { before: limitOf(rule), isTidying })];
    const gone = isTidying ? await finishPrunes(site, found) : new Set();
    if (isTidying) await finishPackRemovals(settings);
    const groups = found.filter(({ name }) => !gone.has(name));
    const selection = await select(site, rule, groups);
    const old = await findPacks(site, rule);
    const { selected } = selection;
    if (options.dryRun) {
      for (const { name } of old.free) printPack(name, 'would go', json);
      for (const group of selected) printGroup(group, 'would go', json);
    } else if (selected.length + old.free.length > 0) {
      if (!options.yes) await confirm(describeTotal(selection, old));
      const packs = await findPacks(site, rule);
      Object.assign(old, { free: [], held: packs.held });
      for (const pack of packs.free) {
        const isPruned = await prunePack(settings, pack, formatRule(rule));
        old[isPruned ? 'free' : 'held'].push(pack);
        if (isPruned) printPack(pack.name, 'removed', json);
      }
      await removeSelected(site, rule, selection, (group) => printGroup(group, 'removed', json));
    }
    printSummary(selection, old, options.dryRun === true, json);
  });
}

/** Archives as a whole are selected by age only. */
async function findPacks({ settings }: Site, { olderThanSeconds, keep, maxBytes }: Rule): Promise<OldPacks> {
  if (olderThanSeconds === undefined || keep !== undefined || maxBytes !== undefined) return { free: [], held: [] };
  return findOldPacks(settings, Date.now() - olderThanSeconds * 1000);
}

function ruleOf({ olderThan, keep, maxBytes, incomplete }: Options): Rule {
  if (olderThan === undefined && keep === undefined && maxBytes === undefined)
    throw new Failure('usage', 'prune requires --older-than, --keep or --max-bytes');
  return {
    ...(olderThan !== undefined && { olderThanSeconds: olderThan }),
    ...(keep !== undefined && { keep }),
    ...(maxBytes !== undefined && { maxBytes }),
    ...(incomplete && { incomplete }),
  };
}

/**
 * The time, in milliseconds, from which on uploads need no scan; undefined when other parts of the
 * rule count newer uploads.
 */
function limitOf({ olderThanSeconds, keep, maxBytes }: Rule): number | undefined {
  const isAlone = keep === undefined && maxBytes === undefined;
  return isAlone && olderThanSeconds !== undefined ? Date.now() - olderThanSeconds * 1000 : undefined;
}

async function select(site: Site, rule: Rule, groups: readonly Scanned[]): Promise<Selection> {
  const holds = readHolds(site.settings);
  if (rule.keep !== undefined || holds.length > 0) await attributeUploads(site, groups);
  return selectGroups(groups, rule, Date.now(), (group) => findHold(holds, group) !== undefined);
}

/**
 * Finishes prunes that were killed after they had recorded their removals. Returns the names that
 * are gone now.
 */
async function finishPrunes({ settings }: Site, groups: readonly Scanned[]): Promise<Set<string>> {
  const left = new Set(groups.flatMap(({ name, isComplete, isLocked }) => (isComplete || isLocked ? [] : name)));
  const gone = new Set<string>();
  if (left.size === 0) return gone;
  for (const record of readEvents(settings, 'prune')) {
    for (const { name, files } of record.groups) {
      if (!left.has(name) || !(await finishRemoval(settings.incomingDirectory, name, files))) continue;
      left.delete(name);
      gone.add(name);
    }
  }
  if (gone.size > 0) say(`finished an interrupted prune: removed ${countOf(gone.size, 'upload')}`);
  return gone;
}

async function removeSelected(
  site: Site,
  rule: Rule,
  selection: Selection,
  report: (group: Scanned) => void,
): Promise<void> {
  const left = selection.selected;
  const progress = startProgress('prune', left.length);
  selection.selected = [];
  while (left.length > 0) {
    const batch = await dropHeld(site, left.splice(0, BATCH), selection);
    const described = await Promise.all(batch.map(({ name }) => describeGroup(site.settings.incomingDirectory, name)));
    // Reading all of them can take a long time, so holds are checked again.
    const free = await dropHeld(site, batch, selection);
    const stayed = await removeBatch(site, rule, free, described);
    for (const group of free) {
      if (stayed.has(group.name)) selection.locked.push(group);
      else {
        selection.selected.push(group);
        report(group);
      }
    }
    progress.advance(batch.length);
  }
  progress.end();
}

/** Leaves out uploads that are on hold now, because a hold that was set meanwhile counts. */
async function dropHeld(site: Site, groups: readonly Scanned[], selection: Selection): Promise<Scanned[]> {
  const holds = readHolds(site.settings);
  if (holds.length > 0) await attributeUploads(site, groups);
  return groups.filter((group) => {
    const isHeld = findHold(holds, group) !== undefined;
    if (isHeld) selection.held.push(group);
    return !isHeld;
  });
}

/** Removes a batch; returns the names of those that stay. */
async function removeBatch(
  { settings }: Site,
  rule: Rule,
  batch: readonly Scanned[],
  described: readonly Described[],
): Promise<Set<string>> {
  const locker = settings.incomingDirectory;
  const byName = new Map(batch.map((group) => [group.name, group]));
  for (const group of batch) group.jobId ??= readJobId(locker, group);
  const going = described.filter(({ name }) => byName.has(name));
  const groups = going.map(({ name, files }) => ({ name, jobId: byName.get(name)?.jobId, files }));
  if (groups.length > 0) {
    const names = groups.map(({ name }) => name);
    recordEvent(settings, { event: 'prune', rule: formatRule(rule), names, groups });
  }
  return new Set(removeDescribed(locker, going));
}

async function confirm(what: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new Failure('usage', 'without a terminal prune requires --yes', 'run it with --dry-run first');
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(`remove ${what}? [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new Failure('failed', 'nothing was removed');
  } finally {
    terminal.close();
  }
}

function printGroup(group: Scanned, action: string, json: true | undefined): void {
  const at = new Date(group.at).toISOString();
  const { name, bytes, isComplete, jobId, owner } = group;
  const { clientId, command } = owner ?? {};
  if (json) printJson({ name, at, bytes, isComplete, jobId, client: clientId, command, action });
  else printLine(`${at}  ${formatBytes(bytes).padStart(8)}  ${safeLine(name)}${isComplete ? '' : '  (incomplete)'}`);
}

function printPack(pack: string, action: string, json: true | undefined): void {
  if (json) printJson({ pack, action });
  else printLine(`archive ${pack}`);
}

function bytesOf(groups: readonly Scanned[]): number {
  return groups.reduce((sum, { bytes }) => sum + bytes, 0);
}

function describeTotal({ selected }: Selection, { free }: OldPacks): string {
  return `${countOf(selected.length, 'upload')}, ${formatBytes(bytesOf(selected))}, and ${countOf(free.length, 'archive')}`;
}

function printSummary(selection: Selection, old: OldPacks, isDryRun: boolean, json: true | undefined): void {
  const { selected, held, locked, excessBytes } = selection;
  const counts = { groups: selected.length, bytes: bytesOf(selected), packs: old.free.length };
  const stay = { held: held.length, heldPacks: old.held.length, locked: locked.length, excessBytes };
  if (json) printJson({ ...counts, ...stay, dryRun: isDryRun });
  else say(`${describeTotal(selection, old)} ${isDryRun ? 'would be removed' : 'removed'}`);
  if (held.length + old.held.length > 0)
    say(`on hold, not removed: ${countOf(held.length, 'upload')}, ${countOf(old.held.length, 'archive')}`);
  if (locked.length > 0) warn(`being written or changed, not removed: ${countOf(locked.length, 'upload')}`);
  if (excessBytes > 0)
    warn(`the locker is still ${formatBytes(excessBytes)} too large, and nothing more may be removed`);
  if (locked.length > 0 || excessBytes > 0) process.exitCode = 1;
}
