// webjobctl custody adopt: records uploads without a custody record as they are now, and restarts
// the witness.

import { join } from 'node:path';
import { Command } from 'commander';
import { parseReady, STREAMS, type StreamName, walkLocker } from 'webjob-locker';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { withLock } from '../../cli/lockfile.ts';
import { printJson, printLine, safeLine, say, warn } from '../../cli/output.ts';
import { type AdoptedUpload, BATCH, recordEvent, recordGenesis } from '../../evidence/events.ts';
import type { Evidence } from '../../evidence/evidence.ts';
import { openEvidence, tellWitness } from '../site/evidence.ts';
import { openTree, recordsOf, wholeSegments } from '../site/logs.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { keepFolder, withSiteLock } from '../site/site-lock.ts';
import { isRoot } from '../site/users.ts';

interface Options {
  reason: string;
  dryRun?: true;
}

const EXPLANATION = `
Records uploads without a custody record, from before it began or from a server that keeps none, with their sizes and
SHA-256 as they are now: from then on webjobctl verify finds changes to them. A custody record that differs from what
root saw before is accepted as it is now, and the former one is kept beside the witness. A custody record without the
first entry that webjobctl init makes gets that entry at its end. Run webjobctl verify first: it no longer reports
adopted uploads.

Examples:
  webjobctl custody adopt --reason 'uploads of the server before this one' --dry-run
  webjobctl custody adopt --reason 'uploads of the server before this one'

Exit codes:
  0  done
  1  done, but some uploads are incomplete and stay unrecorded
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written, or another webjobctl is running`;

export function adoptCommand(): Command {
  return new Command('adopt')
    .description('record unrecorded uploads as they are now')
    .requiredOption('--reason <TEXT>', 'the reason, for the custody record')
    .option('--dry-run', 'only list what would be adopted')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) =>
      adopt(openSite(command), options, globalOptions(command).json),
    );
}

async function adopt(site: Site, { reason, dryRun }: Options, json: true | undefined): Promise<void> {
  if (reason.trim() === '') throw new Failure('usage', '--reason is empty');
  const report = (what: string, place: string): void => {
    const action = dryRun ? 'would adopt' : 'adopted';
    if (json) printJson({ action, what, place });
    else printLine(safeLine(`${action} ${what.padEnd(7)} ${place}`));
  };
  await withSiteLock(site.settings, dryRun ? undefined : 'keep', () => {
    const evidence = openEvidence(site, { isNow: true });
    try {
      let batch: AdoptedUpload[] = [];
      const record = (): void => {
        if (batch.length > 0 && !dryRun) recordEvent(site.settings, { event: 'adopt', reason, uploads: batch });
        batch = [];
      };
      for (const upload of findUnrecorded(site, evidence)) {
        batch.push(upload);
        if (batch.length === BATCH) record();
        report('upload', upload.name);
      }
      record();
      for (const { file, folder } of evidence.records.rootless()) {
        if (!dryRun) recordGenesis(join(folder, file), reason);
        report('record', file);
      }
      for (const place of evidence.cut()) report('record', place);
      evidence.records.refresh();
      if (!dryRun) tellWitness(evidence, true);
      if (!dryRun && isRoot()) beginTrees(site.settings);
    } finally {
      evidence.close();
    }
  });
  if (!json && !isRoot()) say('only root keeps a witness of the custody record');
}

/** A record that no longer matches its checkpoints continues as a new log. */
function beginTrees(settings: ServerSettings): void {
  withLock(join(keepFolder(settings), 'custody-tree'), () => {
    for (const serverId of recordsOf(settings).keys()) {
      const tree = openTree(settings, serverId);
      try {
        if (tree.isNew || tree.findChanged(wholeSegments(settings, serverId)) === undefined) continue;
        const before = tree.origin;
        tree.begin();
        tree.save();
        say(`${before} ended with the adopted record: the next checkpoint is of ${tree.origin}`);
      } finally {
        tree.close();
      }
    }
  });
}

/** Yields the uploads that have no custody record. */
function* findUnrecorded({ settings }: Site, evidence: Evidence): Generator<AdoptedUpload> {
  let left = 0;
  for (const { group } of walkLocker(settings.incomingDirectory)) {
    if (!group?.has.has('rdy') || evidence.records.find(group.name)) continue;
    const upload = describe(evidence, group.name);
    if (upload) yield upload;
    else left++;
  }
  if (left === 0) return;
  warn(`incomplete uploads stay unrecorded: ${left}`);
  process.exitCode = 1;
}

/** Describes an upload; undefined for one that is not complete. */
function describe(evidence: Evidence, name: string): AdoptedUpload | undefined {
  const { streams, ready } = evidence.judge(name, { contents: true, digests: true });
  const [bytes, sha256] = [{}, {}] as [Record<StreamName, number>, Record<StreamName, string>];
  for (const stream of STREAMS) {
    const { bytes: size, sha256: digest } = streams[stream];
    if (size === undefined || digest === undefined) return undefined;
    bytes[stream] = size;
    sha256[stream] = digest;
  }
  try {
    return { name, jobId: parseReady(ready ?? ''), bytes, sha256 };
  } catch {
    return undefined;
  }
}
