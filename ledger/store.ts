// Opens the store of a site in one of three ways: in place, brought up to date for everyone; as a
// private copy that is brought up to date and discarded; or, if there is no store, as an empty one
// that is filled for the current question only. Tables and code are the same in each case.
import {
  closeSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import { Failure } from '../cli/failure.ts';
import { isRootsOwn } from '../cli/files.ts';
import { Refresh, type Refreshed, type Steps, type Walk, type Window } from './refresh.ts';
import { SCHEMA_VERSION, TABLES } from './schema.ts';
import { logFolders, type Site } from './site.ts';
import { APPLICATION_ID, type Database, openDatabase } from './sqlite.ts';
import { beginTexts } from './texts.ts';

/** A store that is up to date. */
export interface Store {
  database: Database;
  /** The changes since the store was last brought up to date. */
  refreshed: Refreshed;
  /** Whether other processes see changes to the store. */
  isShared: boolean;
  /** Whether the store contains the whole site, and not only the part that one question needs. */
  isComplete: boolean;
  close(): void;
}

/** The path of a site's store. */
export function storeFile(site: Pick<Site, 'settings'>): string {
  return join(site.settings.baseDirectory, 'index', 'webjob.sqlite');
}

/**
 * The maximum size of a locker, in uploads, that is walked for every question if it has changed.
 */
const SMALL = 20_000;
/** A larger locker is walked at most this often, except by `webjobctl index`. */
const WALK_MS = 900_000;

/**
 * Opens a site's store, brought up to date. If there is no store, or the question needs little,
 * opens a temporary store with just enough for the question. Throws Failure `failed` for a site
 * that cannot be read.
 */
export async function openStore(site: Site, window: Window, steps: Steps = {}): Promise<Store> {
  return (await openKnownStore(site, steps)) ?? openWindow(site, window, steps);
}

/**
 * Opens the store in this file and brings it up to date in place. Undefined when the file is not a
 * complete store of this site, or cannot be written now. Throws Failure `failed` for a site that
 * cannot be read.
 */
export async function openStoreAt(path: string, site: Site, steps: Steps = {}): Promise<Store | undefined> {
  if (!isStore(path) || !mayWriteIn(dirname(path))) return undefined;
  let database: Database | undefined;
  try {
    for (const suffix of ['', '-wal', '-shm', '-journal']) checkOwner(path + suffix);
    database = openDatabase(path, false);
    if (!isWhole(database, site)) return closeAll(database);
    database.exec('PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384; BEGIN IMMEDIATE');
    // Another process may have replaced the store meanwhile.
    if (!isWhole(database, site)) return closeAll(database);
    const refreshed = await refresh(database, site, walkOf(database), steps);
    database.exec('COMMIT');
    return { database, refreshed, isShared: true, isComplete: true, close: () => closeAll(database) };
  } catch (error) {
    closeAll(database);
    if (!isDatabaseError(error)) throw error;
    return undefined;
  }
}

/**
 * Opens the store of a site for reading, without an update; undefined when there is no complete
 * store that this process may read. The caller closes it.
 */
export function openUnrefreshed(site: Site): Database | undefined {
  const path = storeFile(site);
  if (!isStore(path)) return undefined;
  let database: Database | undefined;
  try {
    database = openDatabase(path, true);
    return isWhole(database, site) ? database : closeAll(database);
  } catch (error) {
    closeAll(database);
    if (!isDatabaseError(error)) throw error;
    return undefined;
  }
}

function closeAll(database: Database | undefined): undefined {
  database?.close();
  return undefined;
}

async function refresh(database: Database, site: Site, walk: Walk, steps: Steps): Promise<Refreshed> {
  return new Refresh(database, site, steps).run(walk);
}

function walkOf(database: Database): Walk {
  const walkedAt = Number(database.prepare("SELECT value FROM facts WHERE name = 'walked'").get()?.value ?? 0);
  return countUploads(database) <= SMALL || Math.abs(Date.now() - walkedAt) > WALK_MS ? 'changed' : 'none';
}

/**
 * Opens a copy of the store, brought up to date. Undefined when no store can be read, or there is
 * no room for a copy.
 */
async function openCopy(site: Site, steps: Steps): Promise<Store | undefined> {
  const path = storeFile(site);
  if (!isStore(path)) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'webjob-store-'));
  let database: Database | undefined;
  try {
    const copy = join(folder, 'webjob.sqlite');
    if (!copyStore(path, copy)) return undefined;
    database = openDatabase(copy, false);
    // On Unix an open file needs no name, so that a kill leaves nothing behind.
    database.exec(
      'PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE',
    );
    if (!isWhole(database, site)) return closeAll(database);
    rmSync(folder, { recursive: true, force: true });
    const refreshed = await refresh(database, site, walkOf(database), steps);
    database.exec('COMMIT');
    const whole = database;
    return { database: whole, refreshed, isShared: false, isComplete: true, close: () => whole.close() };
  } catch (error) {
    closeAll(database);
    if (!isDatabaseError(error)) throw error;
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const COPY_TRIES = 5;

/**
 * Copies a store; false when there is none that can be read. A store that is being written is
 * copied by SQLite, which keeps it consistent.
 */
function copyStore(path: string, copy: string): boolean {
  for (let tries = 0; tries < COPY_TRIES; tries++) {
    const before = stampOf(path);
    if (before === undefined) return false;
    if (before.endsWith(' 0')) {
      copyFileSync(path, copy);
      if (stampOf(path) === before) return true;
      rmSync(copy);
      continue;
    }
    try {
      const database = openDatabase(path, true);
      try {
        database.prepare('VACUUM INTO ?').run(copy);
        return true;
      } finally {
        database.close();
      }
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      rmSync(copy, { force: true });
    }
  }
  return false;
}

/**
 * The stamp of a store file and the size of its write-ahead log; undefined when the file does not
 * exist.
 */
function stampOf(path: string): string | undefined {
  const [main, log] = ['', '-wal'].map((suffix) => statSync(path + suffix, { throwIfNoEntry: false, bigint: true }));
  return main && `${main.ino} ${main.size} ${main.mtimeNs} ${log?.size ?? 0}`;
}

/**
 * Opens an empty, private store. A database without a name becomes a temporary file when it no
 * longer fits into the cache.
 */
export function openWindowStore(): Database {
  const database = openDatabase('', false);
  database.exec(
    'PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768; PRAGMA temp_store = FILE',
  );
  database.exec(TABLES);
  return database;
}

/** Opens an existing store and brings it up to date; undefined when none can be used. */
export async function openKnownStore(site: Site, steps: Steps = {}): Promise<Store | undefined> {
  return (await openStoreAt(storeFile(site), site, steps)) ?? (await openCopy(site, steps));
}

/** Rolls back a transaction that failed, unless SQLite has done so itself. */
export function rollBack(database: Database): void {
  try {
    database.exec('ROLLBACK');
  } catch {
    // SQLite has already ended the transaction.
  }
}

/** Opens an empty store and fills it with the part of the site that the question needs. */
async function openWindow(site: Site, window: Window, steps: Steps): Promise<Store> {
  const database = openWindowStore();
  try {
    database.exec('BEGIN');
    const refreshing = new Refresh(database, site, steps);
    const isWholeSite = !window.since && window.contains === undefined && !window.isClient && !window.logOnly;
    const refreshed = isWholeSite ? await refreshing.run('changed') : await refreshing.runWindow(window);
    database.exec('COMMIT');
    return { database, refreshed, isShared: false, isComplete: isWholeSite, close: () => database.close() };
  } catch (error) {
    database.close();
    throw error;
  }
}

export interface FillOptions {
  /** Whether to make the store again from nothing. */
  rebuild?: boolean;
  /** Whether to check every upload again, which in a large locker otherwise happens once a day. */
  check?: boolean;
  /** The number of bytes of each stream to index when the store is made. */
  maxText?: number;
}

/**
 * Makes the store of a site, or brings it up to date. An unfinished store is made again. Throws
 * Failure `failed` for a file that is not a store, and the errors of SQLite.
 */
export async function fillStore(path: string, site: Site, options: FillOptions, steps: Steps = {}): Promise<Store> {
  const { database, isAlone } = openToFill(path, site, options.rebuild === true);
  try {
    database.exec('BEGIN IMMEDIATE');
    const { incomingDirectory } = site.settings;
    const { maxText } = options;
    const readTexts = isAlone && maxText !== undefined ? beginTexts(database, incomingDirectory, maxText) : undefined;
    const walk = options.check || isDue(database) ? 'all' : walkOf(database);
    const refreshed = await new Refresh(database, site, steps, readTexts).run(walk);
    database.prepare("INSERT OR REPLACE INTO facts VALUES ('site', ?)").run(describeSite(site));
    database.exec('COMMIT');
    if (isAlone) publish(database);
    return { database, refreshed, isShared: true, isComplete: true, close: () => database.close() };
  } catch (error) {
    database.close();
    throw error;
  }
}

const CHECK_MS = 86_400_000;

/** Whether every upload must be checked; always true for a small locker. */
function isDue(database: Database): boolean {
  const checkedAt = Number(database.prepare("SELECT value FROM facts WHERE name = 'checked'").get()?.value ?? 0);
  return countUploads(database) <= SMALL || Math.abs(Date.now() - checkedAt) > CHECK_MS;
}

/** An upper bound of the number of uploads. */
function countUploads(database: Database): number {
  return Number(database.prepare('SELECT max(id) AS id FROM uploads').get()?.id ?? 0);
}

/**
 * A store to be brought up to date, or an empty one, which no other process can open while it is
 * filled.
 */
interface ToFill {
  database: Database;
  isAlone: boolean;
}

function openToFill(path: string, site: Site, rebuild: boolean): ToFill {
  makeFolder(dirname(path));
  const known = readApplicationId(path);
  if (known !== undefined && known !== APPLICATION_ID)
    throw new Failure('failed', `${path} is not an index of webjobctl`, 'name another file, or remove this one');
  for (const suffix of ['', '-journal', '-wal', '-shm']) checkOwner(path + suffix);
  if (known === undefined) makeFile(path, site);
  try {
    return prepare(path, site, rebuild);
  } catch (error) {
    // A damaged or unfinished store can only be made again.
    if (!isDatabaseError(error) || !(rebuild || isUnfinished(path))) throw error;
    for (const suffix of ['-journal', '-wal', '-shm', '']) rmSync(path + suffix, { force: true });
    makeFile(path, site);
    return prepare(path, site, false);
  }
}

function makeFile(path: string, site: Site): void {
  if (existsSync(path)) rmSync(path);
  closeSync(openSync(path, 'wx', path === storeFile(site) ? modeOf(site) : 0o600));
}

/**
 * Opens a store and empties it if it is of another version or site, or unfinished. The file itself
 * stays, because other processes may have it open.
 */
function prepare(path: string, site: Site, rebuild: boolean): ToFill {
  const database = openDatabase(path, false);
  try {
    // The id is set before anything is in the write-ahead log, so that the database file itself
    // always contains it.
    if (readApplicationId(path) !== APPLICATION_ID) database.exec(`PRAGMA application_id = ${APPLICATION_ID}`);
    database.exec('PRAGMA temp_store = FILE; PRAGMA cache_size = -16384');
    const goesOn = !rebuild && isWhole(database, site);
    const isAlone = !goesOn && takeAlone(database);
    if (!isAlone) database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    database.exec('BEGIN IMMEDIATE');
    if (!goesOn) empty(database);
    database.exec(`${TABLES} ${isAlone ? '' : `PRAGMA user_version = ${SCHEMA_VERSION};`} COMMIT`);
    return { database, isAlone };
  } catch (error) {
    database.close();
    throw error;
  }
}

/**
 * Locks a store that is filled from nothing, for as long as it is open, so that no journal is
 * needed and filling takes half of the time. A kill leaves a store without a version, which is not
 * used. False while other processes have the store open.
 */
function takeAlone(database: Database): boolean {
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL');
    database.exec(`BEGIN EXCLUSIVE; PRAGMA user_version = ${UNFINISHED}; COMMIT; PRAGMA journal_mode = OFF`);
    database.exec('PRAGMA synchronous = OFF');
    return true;
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    rollBack(database);
    database.exec('PRAGMA locking_mode = NORMAL');
    return false;
  }
}

/** The version of a store while it is filled. */
const UNFINISHED = 0;

/** Gives a store its version, by which others find it, once it is complete and on disk. */
function publish(database: Database): void {
  database.exec("PRAGMA synchronous = FULL; BEGIN; INSERT OR REPLACE INTO facts VALUES ('filled', '1'); COMMIT");
  database.exec('PRAGMA journal_mode = DELETE; PRAGMA locking_mode = NORMAL');
  database.exec(`PRAGMA user_version = ${SCHEMA_VERSION}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL`);
}

function isUnfinished(path: string): boolean {
  try {
    const database = openDatabase(path, true);
    try {
      return database.prepare('PRAGMA user_version').get()?.user_version === UNFINISHED;
    } finally {
      database.close();
    }
  } catch {
    return false;
  }
}

function empty(database: Database): void {
  const names = (): string[] =>
    database
      .prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC",
      )
      .all()
      .map(({ name }) => name as string);
  // Dropping a virtual table also drops its shadow tables.
  for (let [name] = names(); name !== undefined; [name] = names()) database.exec(`DROP TABLE "${name}"`);
}

/** The mode of a store: only users who can read the locker and the logs may read the store. */
function modeOf(site: Site): number {
  const folders = [site.settings.incomingDirectory, ...logFolders(site)];
  return folders.every((folder) => ((statSync(folder, { throwIfNoEntry: false })?.mode ?? 0) & 0o005) === 0o005)
    ? 0o644
    : 0o600;
}

/** Whether a store is complete, of this version, and of the site with its current settings. */
function isWhole(database: Database, site: Site): boolean {
  if (database.prepare('PRAGMA user_version').get()?.user_version !== SCHEMA_VERSION) return false;
  return database.prepare("SELECT value FROM facts WHERE name = 'site'").get()?.value === describeSite(site);
}

/** The settings that jobs depend on. */
function describeSite(site: Site): string {
  const { incomingDirectory, putNameFormat, useGMT } = site.settings;
  const zone = useGMT ? '' : [0, 6].map((month) => new Date(2026, month, 1).getTimezoneOffset()).join();
  const servers = site.servers.map(({ serverId, logfilesDirectory }) => [serverId, logfilesDirectory]);
  return JSON.stringify([incomingDirectory, putNameFormat, useGMT, zone, servers]);
}

/**
 * Checks the owner of a file. In a directory such as /tmp, anyone may have created the file, to
 * read what is later written to it, or a journal, which SQLite would replay. Throws Failure.
 */
function checkOwner(file: string): void {
  const owners = [0, process.geteuid?.(), statSync(dirname(file)).uid];
  for (const found of [lstatSync(file, { throwIfNoEntry: false }), statSync(file, { throwIfNoEntry: false })])
    if (found && !owners.includes(found.uid))
      throw new Failure('failed', `${file} belongs to another user`, 'name a file in a directory of your own');
}

/**
 * Whether this process may create database files in a directory: root must not where others could
 * replace the files by links.
 */
function mayWriteIn(folder: string): boolean {
  return process.geteuid?.() !== 0 || isRootsOwn(folder);
}

function isStore(path: string): boolean {
  try {
    return existsSync(path) && readApplicationId(path) === APPLICATION_ID;
  } catch {
    return false;
  }
}

/**
 * The application_id in the header of an SQLite file; undefined for no file or an empty one, 0 for
 * another kind of file.
 */
function readApplicationId(path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path}: ${code}`, undefined, { cause: error });
  }
  try {
    const head = Buffer.alloc(100);
    const length = readSync(fd, head, 0, head.length, 0);
    if (length === 0) return undefined;
    return head.toString('latin1', 0, 16) === 'SQLite format 3\0' ? head.readUInt32BE(68) : 0;
  } finally {
    closeSync(fd);
  }
}

/**
 * Whether an error only means that a store cannot be used, so that the same facts can be read from
 * the files.
 */
export function isDatabaseError(error: unknown): boolean {
  const { code, syscall = '', cause } = error as NodeJS.ErrnoException & { cause?: NodeJS.ErrnoException };
  return code === 'ERR_SQLITE_ERROR' || cause?.code === 'ERR_SQLITE_ERROR' || /^(?:copyfile|mkdtemp)$/.test(syscall);
}
