// What an index was made of: the log's files and the locker's folders at that moment. It is fresh while they are the same; looking costs a
// stat for each of them.
import { lstatSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openFolder } from 'webjob-locker';
import { listPacks } from '../../archive/packs.ts';
import { LOG } from '../history/log-files.ts';
import type { Site } from '../site.ts';

/** A folder that changed so lately may change again without another time. */
const SETTLED_MS = 50;

export interface Stamp {
  /** What readJobs goes by, too. */
  settings: string;
  logs: string[];
  packs: string[];
  /** Every folder of the locker, below IncomingDirectory, with its time. */
  folders: [path: string, mtime: string][];
}

/** Walks the folders of the locker. Taken before what it vouches for is read. */
export async function takeStamp(site: Site): Promise<Stamp> {
  const folders: Stamp['folders'] = [];
  for (const path of findFolders(site.settings.incomingDirectory, '')) {
    let mtime = mtimeOf(site, path);
    for (let tries = 0; tries < 20 && isUnsettled(mtime); tries++) {
      await sleep(SETTLED_MS);
      mtime = mtimeOf(site, path);
    }
    // One that never rests makes an index that is not fresh.
    folders.push([path, isUnsettled(mtime) ? '' : String(mtime)]);
  }
  return { settings: settingsOf(site), logs: stampLogs(site), packs: stampPacks(site), folders };
}

/** True while the site is what the stamp was taken of. */
export function isFresh(site: Site, { settings, logs, packs, folders }: Stamp): boolean {
  return (
    settings === settingsOf(site) &&
    JSON.stringify(logs) === JSON.stringify(stampLogs(site)) &&
    JSON.stringify(packs) === JSON.stringify(stampPacks(site)) &&
    folders.every(([path, mtime]) => String(mtimeOf(site, path)) === mtime)
  );
}

function settingsOf({ settings }: Site): string {
  const { incomingDirectory, logfilesDirectory, putNameFormat, useGMT } = settings;
  return JSON.stringify([incomingDirectory, logfilesDirectory, putNameFormat, useGMT]);
}

function stampLogs({ settings: { logfilesDirectory } }: Site): string[] {
  const names = readdirSync(logfilesDirectory).filter((name) => name.startsWith(LOG));
  return names.sort().flatMap((name) => stampFile(join(logfilesDirectory, name)));
}

function stampPacks({ settings }: Site): string[] {
  return listPacks(settings).flatMap(({ manifest }) => stampFile(manifest));
}

function stampFile(path: string): string[] {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return found ? [`${basename(path)} ${found.ino} ${found.size} ${found.mtimeNs}`] : [];
}

/** Entry by entry: in a large folder hardly any is a folder. */
function* findFolders(locker: string, path: string): Generator<string> {
  yield path;
  const children: string[] = [];
  const folder = openFolder(join(locker, path));
  try {
    for (let entry = folder.readSync(); entry; entry = folder.readSync())
      if (entry.isDirectory()) children.push(join(path, entry.name));
  } finally {
    folder.closeSync();
  }
  for (const child of children.sort()) yield* findFolders(locker, child);
}

function mtimeOf({ settings }: Site, path: string): bigint | undefined {
  return lstatSync(join(settings.incomingDirectory, path), { throwIfNoEntry: false, bigint: true })?.mtimeNs;
}

function isUnsettled(mtime: bigint | undefined): boolean {
  return mtime !== undefined && Number(mtime / 1_000_000n) > Date.now() - SETTLED_MS;
}
