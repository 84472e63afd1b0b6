// The site of a request, and the view's own store of it, in a directory of the view, because the
// view may not write to the locker.
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { CgiEnvironment } from 'node-cgi-compat';
import { actFolders } from '../admin/acts/request.ts';
import { readSite } from '../admin/site/site.ts';
import { makeScanIndexes } from '../ledger/scan.ts';
import type { Site } from '../ledger/site.ts';
import { type Database, openDatabase } from '../ledger/sqlite.ts';
import { fillStore, openStoreAt } from '../ledger/store.ts';
import { indexTexts, MAX_TEXT_BYTES } from '../ledger/texts.ts';
import { noteChanges } from './changes.ts';

export interface Place {
  site: Site;
  /** The view's own directory, with its store and the record of accesses. */
  folder: string;
  /** The file of accesses; undefined when they are not recorded. */
  accessRecord: string | undefined;
  /** The directories of acts; undefined where acts are not set up. */
  acts: ActPlace | undefined;
}

/** The directories of requests and answers. */
export interface ActPlace {
  inbox: string;
  answers: string;
  /** The secret by which this view recognises its own forms. */
  secret: string;
}

const DEFAULT_FOLDER = '/var/lib/webjob-view';

/** Reads the place from the environment. Throws Failure `settings`. */
export function readPlace(env: CgiEnvironment): Place {
  const folder = env.WEBJOB_VIEW_DIRECTORY || DEFAULT_FOLDER;
  const isOn = (value: string | undefined): boolean => /^(?:on|1|y|yes)$/i.test(value ?? '');
  const site = readSite(env.WEBJOB_PROPERTIES_FILE || undefined);
  return {
    site,
    folder,
    accessRecord: isOn(env.WEBJOB_VIEW_ACCESS_RECORD) ? join(folder, 'access.jsonl') : undefined,
    acts: isOn(env.WEBJOB_VIEW_ACTS)
      ? { ...actFolders(site.settings), secret: join(folder, 'acts.secret') }
      : undefined,
  };
}

const storePath = ({ folder }: Place): string => join(folder, 'webjob.sqlite');

/** How long a store counts as up to date. */
const FRESH_MS = 1000;

interface Kept {
  path: string;
  database: Database;
}

let kept: Kept | undefined;
let freshUntil = 0;
let refreshing: Promise<boolean> | undefined;

/**
 * The store, at most a little out of date. Undefined while another process makes it for the first
 * time, for which this waits up to `patienceMs`. Throws Failure `failed` for a site that cannot be
 * read.
 */
export async function openViewStore(place: Place, patienceMs: number): Promise<Database | undefined> {
  const path = storePath(place);
  if (kept && kept.path !== path) {
    kept.database.close();
    kept = undefined;
    freshUntil = 0;
  }
  if (performance.now() >= freshUntil) {
    // Concurrent requests wait for the same refresh.
    refreshing ??= refresh(place, patienceMs).finally(() => {
      refreshing = undefined;
    });
    const isThere = await refreshing;
    if (!isThere && !kept) return undefined;
    freshUntil = performance.now() + FRESH_MS;
  }
  kept ??= { path, database: openDatabase(path, false) };
  return kept.database;
}

/**
 * Refreshes in a separate connection, so that readers only see complete changes. False when
 * there is no store yet.
 */
async function refresh(place: Place, patienceMs: number): Promise<boolean> {
  if (await refreshOnce(place)) return true;
  const filling = startFilling(place);
  await new Promise<void>((resolve) => {
    // The timer must not keep a waiting script alive.
    const timer = setTimeout(resolve, patienceMs);
    filling.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
    if (filling.exitCode !== null) resolve();
  });
  return filling.exitCode === 0 && (await refreshOnce(place));
}

async function refreshOnce(place: Place): Promise<boolean> {
  const store = await openStoreAt(storePath(place), place.site);
  if (!store) return false;
  try {
    makeScanIndexes(store.database);
    indexTexts(store.database, place.site.settings.incomingDirectory, undefined, () => {});
    await noteChanges(store.database, place.site);
    return true;
  } finally {
    store.close();
  }
}

let filler: ChildProcess | undefined;

/** A separate process makes the store, so that this one can tell users to wait. */
function startFilling({ site, folder }: Place): ChildProcess {
  if (filler && filler.exitCode === null && filler.signalCode === null) return filler;
  filler = spawn(process.execPath, [process.argv[1] ?? '', '--index'], {
    stdio: ['ignore', 'ignore', 'inherit'],
    detached: true,
    env: {
      PATH: process.env.PATH,
      WEBJOB_VIEW_DIRECTORY: folder,
      ...(site.propertiesFile !== undefined && { WEBJOB_PROPERTIES_FILE: site.propertiesFile }),
    },
  });
  filler.on('error', () => {});
  filler.unref();
  return filler;
}

/** Makes the store, or brings it up to date. Throws Failure, and the errors of SQLite. */
export async function fillViewStore(place: Place): Promise<void> {
  const store = await fillStore(storePath(place), place.site, { maxText: MAX_TEXT_BYTES });
  try {
    makeScanIndexes(store.database);
    indexTexts(store.database, place.site.settings.incomingDirectory, undefined, () => {});
  } finally {
    store.close();
  }
}
