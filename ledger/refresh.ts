// Brings a store up to date with the files: the new parts of the logs, the custody records, the
// archives and the locker. A custody record or a log line leads to the files of an upload; a walk
// of the locker finds uploads that neither mentions.
import { lstatSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Group, listCustodyFiles, parseCustody, reachFolder, statGroupFile } from 'webjob-locker';
import { encodeField, findJobIdParts, formatTime } from 'webjob-protocol';
import { listPacks } from '../archive/packs.ts';
import { Failure } from '../cli/failure.ts';
import { warn } from '../cli/output.ts';
import { ACT_TEXTS, actsIn } from '../evidence/acts.ts';
import { WRITER } from '../evidence/events.ts';
import { breaksOff, type Located, takenPlace } from './join.ts';
import { makeLister } from './listing.ts';
import { followLogs, readLogBlocks, shift, trimLine } from './log.ts';
import { LOG, listLogs } from './log-files.ts';
import { compileNames, type ParseName, selectNames } from './names.ts';
import { readPack } from './packed.ts';
import { packFiles, type ReadUpload, readUpload, stampBroken, stampReady, unpackFiles } from './read-upload.ts';
import { INDEXES } from './schema.ts';
import { logFolders, type Site } from './site.ts';
import type { Database } from './sqlite.ts';
import type { ReadText, ReadTexts } from './texts.ts';
import { type FileKind, listBroken, readNewLines } from './tracked-files.ts';
import { locate, parseUpload, placeLine, Writer } from './writer.ts';

/**
 * The part of the locker that is walked: nothing, every directory that changed, or everything, with
 * a check of every upload.
 */
export type Walk = 'none' | 'changed' | 'all';

export interface Refreshed {
  /** The number of uploads that were read. */
  read: number;
  /** The number of uploads whose texts were read too. */
  texts: number;
  /** The number of uploads that no longer exist. */
  removed: number;
  /** Rows of the jobs that have ended since the last update. */
  ended: number[];
}

/** The part of a site to read when there is no complete store. */
export interface Window {
  since?: Date | undefined;
  /** Only lines that contain this text. */
  contains?: string | undefined;
  /** Only requests of these clients. */
  isClient?: ((clientId: string) => boolean) | undefined;
  /** Whether to skip the search for uploads that no log line mentions. */
  logOnly?: boolean | undefined;
}

/** The number of units that are joined together. */
const BATCH = 400;
/**
 * The number of units that are joined together while a store is filled: with a larger number, the
 * GET and the PUT of a job are more often joined only once.
 */
const FILL_BATCH = 800;
/** A directory that changed this recently may change again without a new mtime. */
const SETTLED_MS = 2000;
const MAX_CUSTODY_BYTES = 1 << 20;
/** Records of webjobctl about uploads, and about acts of operators, contain one of these. */
const KEEPING = ['"event":"prune"', '"event":"unpack"', ...ACT_TEXTS];
const MAX_LOG_BYTES = 64 * 1024;
/** How far a server's clock may have been set back between a job id and its log line. */
const CLOCK_MS = 3_600_000;

/** A directory with more uploads than this is read again only by `webjobctl index`. */
const LARGE_FOLDER = 20_000;

/**
 * After large directories were listed, they are not listed again for this many times the duration
 * of the listing.
 */
const REST = 50;
const MAX_REST_MS = 900_000;
/** If more PUTs than this broke off, the directories are listed without waiting. */
const MAX_BROKEN = 2000;

/** PUTs that broke off, whose files have not been looked for yet. */
interface BrokenOff {
  /** The log lines of the PUTs. */
  lines: string[];
  /** When their files may be looked for, in milliseconds. */
  from: number;
}

/** A directory of the locker, as found by the last walk. */
interface KnownFolder {
  path: string;
  mtime: string;
  uploads: number;
}

/** One update, in a transaction that the caller has begun. */
export class Refresh {
  readonly #database: Database;
  readonly #site: Site;
  readonly #writer: Writer;
  readonly #locker: string;
  readonly #parseName: ParseName;
  readonly #lister: ReturnType<typeof makeLister>;
  readonly #done: Refreshed = { read: 0, texts: 0, removed: 0, ended: [] };
  readonly #advance: () => void;
  readonly #readTexts: ReadTexts | undefined;
  #mustWalk = false;
  /** Only uploads whose job ids contain this text. */
  #contains: string | undefined;

  /**
   * `readTexts` is for a store that is being filled: it also indexes the texts of each upload that
   * is read.
   */
  constructor(database: Database, site: Site, { advance = () => {} }: Steps = {}, readTexts?: ReadTexts) {
    this.#database = database;
    this.#site = site;
    this.#advance = advance;
    this.#readTexts = readTexts;
    this.#writer = new Writer(database, site);
    this.#locker = site.settings.incomingDirectory;
    this.#parseName = compileNames(site);
    this.#lister = makeLister(this.#locker);
    this.#hasExactNames = !site.settings.putNameFormat.includes('%pid');
  }

  /** Reads everything that is new. Throws Failure `failed`, and the errors of system calls. */
  async run(walk: Walk): Promise<Refreshed> {
    checkLocker(this.#locker);
    this.#isStore = true;
    this.#isFilling =
      this.#database.prepare('SELECT 1 FROM files UNION ALL SELECT 1 FROM uploads LIMIT 1').get() === undefined;
    if (this.#isFilling) this.#writer.beginFilling();
    if (walk !== 'none') this.#walk(walk);
    const isWalked = this.#walkedAt > Number.NEGATIVE_INFINITY;
    await this.#readCustody(!isWalked);
    await this.#readPacks();
    if (this.#mustWalk && !isWalked) this.#walk('changed', true);
    this.#writer.endUploads();
    for (const name of this.#later.splice(0)) this.#look(name);
    await this.#readLogs();
    if (!this.#isFilling) await this.#readLateDeposits();
    this.#settle();
    if (!this.#isFilling && this.#lookForBroken()) this.#settle();
    for (const _ of this.#writer.endFilling()) this.#settle();
    this.#isFilling = false;
    this.#writer.writeSums();
    this.#database.exec(INDEXES);
    return this.#done;
  }

  /**
   * Reads little more than the question needs into an empty store. Throws Failure `failed`, and the
   * errors of system calls.
   */
  async runWindow(window: Window): Promise<Refreshed> {
    checkLocker(this.#locker);
    this.#contains = window.contains;
    const lines = await this.#readWindow(window);
    const puts = lines.filter(({ line }) => line.method === 'PUT' && (line.status === 200 || breaksOff(line)));
    if (window.logOnly) this.#discover(puts);
    else this.#walkSince(window);
    const hasGaps = this.#writer.unexplained(() => true).length > 0;
    if (hasGaps || !window.logOnly) await this.#readPacks(window.since ?? oldestOf(lines));
    if (hasGaps) await this.#readCustody(false);
    await this.#readEarlier(lines, window);
    this.#settle();
    this.#database.exec(INDEXES);
    return this.#done;
  }

  /**
   * Yields the rows of jobs as they end, indefinitely. `onFollow` is called when everything that
   * existed was reported. Only for an empty store that no other process uses. Throws Failure
   * `failed`, and the errors of system calls.
   */
  async *follow(since: Date, onFollow: () => void): AsyncGenerator<number[]> {
    checkLocker(this.#locker);
    for await (const block of followLogs(this.#site, since, onFollow)) {
      for (const { line, text } of block) this.#writer.add(placeLine(this.#site, line, text));
      this.#lister.forget();
      this.#hasSeenOtherNames = false;
      const count = this.#done.ended.length;
      this.#settle();
      yield this.#done.ended.slice(count);
    }
  }

  #settle(): void {
    const isWorth = (put: Located): boolean => this.#isWorthLooking(put);
    if (!this.#isFilling || this.#mustLook) this.#lookFor(isWorth);
    this.#mustLook = false;
    const ended = this.#writer.settle();
    // While a store is filled, nobody asks which jobs are new.
    if (!this.#isFilling) for (const id of ended) this.#done.ended.push(id);
  }

  /** Looks for the uploads of new log lines. */
  #lookFor(isWorth: (put: Located) => boolean): void {
    for (const name of this.#writer.repeated(this.#isFilling ? isWorth : () => true)) this.#look(name);
    this.#discover(this.#writer.unexplained(isWorth));
  }

  /**
   * Whether the locker must be searched for the upload of a PUT. Uploads announced before the last
   * walk are known, unless they broke off or were replaced. Files that broke off before a store is
   * filled are attributed at the end.
   */
  #isWorthLooking({ line, at }: Located): boolean {
    // Files of broken-off PUTs are searched for in listings of whole directories. If the clock was
    // set back, some are missed here, and the next walk finds them.
    if (breaksOff(line)) return !this.#isFilling || at >= this.#walkedAt - 1000;
    return at >= this.#walkedAt - CLOCK_MS || this.#hasExactNames;
  }

  async #readLogs(): Promise<void> {
    const kind: FileKind<Located> = {
      kind: 'log',
      list: () => {
        const paths = logFolders(this.#site).flatMap(listLogs);
        if (paths.length === 0) throw noLog(this.#site);
        return paths;
      },
      isLive: (path) => basename(path) === LOG,
      parse: (text, file) => tryLocate(this.#site, trimLine(text), file),
      maxLineBytes: MAX_LOG_BYTES,
    };
    for await (const { lines } of readNewLines(this.#database, kind, (file) => this.#writer.forgetFile(file))) {
      for (const line of lines) {
        this.#advance();
        this.#writer.add(line);
        if (this.#isFilling && line.line.method === 'PUT' && this.#isWorthLooking(line)) this.#mustLook = true;
      }
      if (this.#writer.pending < (this.#isFilling ? FILL_BATCH : BATCH)) continue;
      this.#settle();
    }
    const broken = listBroken(this.#database);
    const [first] = broken;
    const count = broken.reduce((sum, file) => sum + file.broken, 0);
    if (first) warn(`lines that are not log lines were skipped: ${count}, the first in ${first.name}: ${first.sample}`);
  }

  async #readWindow({ since, contains, isClient }: Window): Promise<Located[]> {
    const found: Located[] = [];
    for await (const block of readLogBlocks(this.#site, { since, contains }))
      for (const { line, text } of block) {
        if (isClient && !isClient(line.clientId ?? '-')) continue;
        const located = placeLine(this.#site, line, text);
        this.#writer.add(located);
        found.push(located);
        this.#advance();
      }
    return found;
  }

  /**
   * Reads earlier requests of the jobs in a window: a job id contains the time at which the job
   * began.
   */
  async #readEarlier(lines: readonly Located[], { since, contains }: Window): Promise<void> {
    if (since === undefined) return;
    const served = new Set(lines.flatMap(({ line }) => (line.method === 'GET' ? (line.jobId ?? []) : [])));
    const wanted = new Map<string, number>();
    const uploads = this.#database.prepare('SELECT facts FROM uploads').all();
    const ids = uploads.flatMap(({ facts }) => parseUpload(facts as string).jobId ?? []);
    for (const jobId of [...lines.flatMap(({ line }) => line.jobId ?? []), ...ids]) {
      const epoch = served.has(jobId) ? undefined : findJobIdParts(jobId)?.epochSeconds;
      if (epoch !== undefined) wanted.set(jobId, epoch * 1000);
    }
    if (wanted.size === 0) return;
    const before = shift(this.#site, since, -1);
    const from = [...wanted.values()].reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
    if (formatTime(new Date(from), this.#site.settings.useGMT) >= before) return;
    const range = { since: new Date(from - CLOCK_MS), until: since, before, contains };
    for await (const block of readLogBlocks(this.#site, range))
      for (const { line, text } of block)
        if (wanted.has(line.jobId ?? '')) this.#writer.add(placeLine(this.#site, line, text));
  }

  /**
   * Reads the records of servers and of webjobctl about uploads. A walk of the locker makes this
   * unnecessary, because it shows what exists.
   */
  async #readCustody(withDeposits: boolean): Promise<void> {
    await this.#readDeposits(withDeposits ? undefined : []);
    const insert = this.#database.prepare('INSERT INTO acts (file, kind, subject, act) VALUES (?, ?, ?, ?)');
    for await (const { facts, file } of this.#readRecords('keeping', KEEPING)) {
      for (const act of actsIn(facts)) insert.run(file, act.kind, act.id, JSON.stringify(act));
      this.#takeEvent(facts);
    }
  }

  async #readDeposits(holds?: readonly string[]): Promise<void> {
    for await (const { facts } of this.#readRecords('custody', holds))
      if (facts.event === 'deposit' && isUploadName(facts.name)) this.#look(facts.name);
  }

  /**
   * Reads the records that servers wrote while the logs were read, so that the upload of a new line
   * is not looked for in listings.
   */
  async #readLateDeposits(): Promise<void> {
    if (this.#writer.unexplained((put) => this.#isLost(put)).length > 0) await this.#readDeposits();
  }

  /** Yields the new records of the servers, or those of webjobctl. */
  async *#readRecords(
    kind: 'custody' | 'keeping',
    holds: readonly string[] | undefined,
  ): AsyncGenerator<{ facts: CustodyEvent; file: number }> {
    const isKeeping = kind === 'keeping';
    const files: FileKind<{ text: string; file: number }> = {
      kind,
      holds,
      list: () => logFolders(this.#site).flatMap((folder) => listCustody(folder, isKeeping)),
      isLive: () => true,
      parse: (text, file) => ({ text, file }),
      maxLineBytes: MAX_CUSTODY_BYTES,
    };
    const forget = (file: number): void => {
      this.#mustWalk = true;
      this.#database.prepare('DELETE FROM acts WHERE file = ?').run(file);
    };
    for await (const { lines } of readNewLines(this.#database, files, forget))
      for (const { text, file } of lines) {
        const facts = parseFacts(text);
        if (facts) yield { facts, file };
      }
  }

  #takeEvent({ event, time, groups }: CustodyEvent): void {
    if (event === 'unpack') this.#mustWalk = true;
    if (event !== 'prune' || !Array.isArray(groups)) return;
    const at = Date.parse(String(time));
    for (const group of groups) {
      if (!isUploadName(group?.name)) continue;
      // If the name exists now, it belongs to another upload, which a later walk has found.
      if (!(at < this.#walkedAt - CLOCK_MS) && !statGroupFile(this.#locker, group.name, 'rdy'))
        this.#lookLater(group.name);
      // Files that broke off and were removed belong to no job.
      if (group.files?.rdy) this.#writer.put(takenUpload(group, at, this.#parseName));
    }
  }

  async #readPacks(since?: Date): Promise<void> {
    const known = new Map(
      this.#database
        .prepare('SELECT name, stamp FROM packs')
        .all()
        .map(({ name, stamp }) => [name, stamp]),
    );
    const save = this.#database.prepare('INSERT OR REPLACE INTO packs (name, stamp) VALUES (?, ?)');
    for (const pack of listPacks(this.#site.settings)) {
      const found = statSync(pack.manifest, { throwIfNoEntry: false, bigint: true });
      if (!found || (since && Number(found.mtimeMs) < since.getTime() - CLOCK_MS)) continue;
      const stamp = `${found.ino}:${found.mtimeNs}:${found.size}`;
      const old = known.get(pack.name);
      known.delete(pack.name);
      if (old === stamp) continue;
      if (old !== undefined) this.#forgetPack(pack.name);
      const isWhole = await readPack(pack, this.#parseName, (upload) => this.#writer.put(upload));
      // A damaged archive is read, and reported, every time.
      save.run(pack.name, isWhole ? stamp : '');
    }
    for (const name of known.keys()) this.#forgetPack(name as string);
  }

  #forgetPack(name: string): void {
    for (const row of this.#database.prepare('SELECT name FROM uploads WHERE place = ?').all(name))
      this.#writer.remove(row.name as string, name);
    this.#database.prepare('DELETE FROM packs WHERE name = ?').run(name);
    this.#mustWalk = true;
  }

  /** Looks in the locker for the uploads of these PUTs, under their possible names. */
  #discover(puts: readonly Located[]): void {
    const looked = new Set<string>();
    for (const { line, text } of puts) {
      const isBroken = breaksOff(line);
      for (const guess of this.#writer.guess(line)) {
        if (looked.size === looked.add(`${isBroken} ${guess.key}`).size) continue;
        if (isBroken && this.#isLarge(guess.folder)) {
          this.#brokenOff.add(text);
          continue;
        }
        const listing = this.#lister.list(guess.folder);
        if (isBroken) {
          const { names, groups } = listing.incomplete();
          for (const name of selectNames(names, guess)) this.#look(name, groups.get(name));
          continue;
        }
        for (const name of selectNames(listing.complete(), guess)) {
          this.#look(name);
          if (guess.isExact) this.#writer.noteReplaced(name, line);
        }
      }
    }
    const isLost = (put: Located): boolean => this.#isLost(put);
    if (puts.some(isLost) && this.#writer.unexplained(isLost).length > 0) this.#lookAtOtherNames();
  }

  /** Whether the upload of a PUT was accepted recently enough to be searched for under any name. */
  #isLost(put: Located): boolean {
    return !breaksOff(put.line) && this.#isWorthLooking(put);
  }

  /** The log lines of PUTs that broke off in large directories. */
  readonly #brokenOff = new Set<string>();
  /** Whether a directory was large at the last walk, by its path. */
  readonly #large = new Map<string, boolean>();

  /**
   * Whether listing a directory would make a question wait too long. Always false without a store.
   */
  #isLarge(folder: string): boolean {
    if (this.#isFilling || !this.#isStore) return false;
    let isLarge = this.#large.get(folder);
    if (isLarge === undefined) {
      const known = this.#database.prepare('SELECT uploads FROM folders WHERE path = ?').get(folder);
      isLarge = Number(known?.uploads ?? 0) > LARGE_FOLDER;
      this.#large.set(folder, isLarge);
    }
    return isLarge;
  }

  /**
   * Searches large directories for the files of PUTs that broke off. Only a listing shows them, so
   * one listing serves many PUTs, and listings are so rare that they take a small part of the time.
   * Returns false when it did not search.
   */
  #lookForBroken(): boolean {
    const row = this.#database.prepare("SELECT value FROM facts WHERE name = 'brokenOff'").get();
    const known: BrokenOff = row ? JSON.parse(String(row.value)) : { lines: [], from: 0 };
    const lines = [...new Set([...known.lines, ...this.#brokenOff])];
    if (lines.length === 0) return false;
    const save = (next: BrokenOff): void => {
      this.#database.prepare("INSERT OR REPLACE INTO facts VALUES ('brokenOff', ?)").run(JSON.stringify(next));
    };
    const wait = known.from - Date.now();
    // A clock that was set back must not delay the search.
    if (wait > 0 && wait <= MAX_REST_MS && lines.length <= MAX_BROKEN) {
      if (lines.length > known.lines.length) save({ lines, from: known.from });
      return false;
    }
    const startedAt = performance.now();
    const guesses = lines.flatMap((text) => [...this.#writer.guess(locate(this.#site, text, 0).line)]);
    for (const group of this.#lister.findIncomplete(guesses)) this.#look(group.name, group);
    const tookMs = performance.now() - startedAt;
    save({ lines: [], from: Math.floor(Date.now() + Math.min(MAX_REST_MS, REST * tookMs)) });
    return true;
  }

  #hasSeenOtherNames = false;
  /** Whether uploads that are read now stay in the store for the next question. */
  #isStore = false;
  /** Whether names have no `%pid`, so that a name may already belong to another upload. */
  readonly #hasExactNames: boolean;
  /** Whether the store was empty at the start. */
  #isFilling = false;
  /** While a store is filled: the uploads that were removed since the walk began. */
  readonly #later: string[] = [];
  /**
   * While a store is filled: whether a waiting line may have an upload that arrived after the walk.
   */
  #mustLook = false;

  /** When the whole locker was walked, in milliseconds. */
  #walkedAt = Number.NEGATIVE_INFINITY;

  /**
   * Reads uploads whose names are not in the current PutNameFormat: only their .rdy files have
   * their job ids.
   */
  #lookAtOtherNames(): void {
    if (this.#hasSeenOtherNames) return;
    this.#hasSeenOtherNames = true;
    const visit = (folder: string): void => {
      const { complete, folders } = this.#lister.list(folder);
      for (const name of complete()) if (!this.#parseName(name)) this.#look(name);
      for (const child of folders) visit(child);
    };
    visit('.');
  }

  /**
   * Reads an upload now or, while a store is filled, later, when it is clear which uploads are
   * known.
   */
  #lookLater(name: string): void {
    if (this.#isFilling) this.#later.push(name);
    else this.#look(name);
  }

  /** Reads an upload unless it is known and unchanged. */
  #look(name: string, known?: Group): void {
    const stamp = this.#writer.stampOf(name, '');
    const ready = stamp === undefined ? undefined : statGroupFile(this.#locker, name, 'rdy');
    if (ready && stampReady(ready) === stamp) return;
    const upload = readUpload(this.#locker, name, this.#parseName, known);
    if (upload && this.#contains !== undefined && !upload.jobId?.includes(this.#contains)) return;
    if (upload) this.#put(upload);
    else this.#remove(name);
  }

  #put(upload: ReadUpload, text?: ReadText): void {
    this.#done.read++;
    if (text) this.#done.texts++;
    this.#writer.put(upload, text);
  }

  #remove(name: string): void {
    this.#done.removed++;
    this.#writer.remove(name, '');
  }

  /**
   * Walks every directory that changed, or all of them. Of the changed ones, large directories are
   * read only by `webjobctl index`, because reading them would slow every question down.
   */
  #walk(walk: Walk, readsLarge = walk === 'all'): void {
    const rows = this.#database.prepare('SELECT path, mtime, uploads FROM folders').all() as unknown as KnownFolder[];
    const known = new Map(rows.map((row) => [row.path, row]));
    const paths = [...new Set(['.', ...known.keys()])].sort();
    const walkedAt = Date.now();
    let isWhole = true;
    const met = new Set<string>();
    const visit = (path: string): void => {
      if (met.size === met.add(path).size) return;
      const mtime = mtimeOf(reachFolder(this.#locker, path));
      const old = known.get(path);
      if (walk === 'changed' && mtime !== '' && old?.mtime === mtime) return;
      if (!readsLarge && old && old.uploads > LARGE_FOLDER) {
        isWhole = false;
        return;
      }
      const { folders, foreignFiles, uploads } = this.#walkFolder(path, walk);
      this.#saveFolder({ path, mtime, foreignFiles, uploads });
      for (const child of folders) visit(child);
    };
    for (const path of paths) visit(path);
    if (isWhole) this.#walkedAt = walkedAt;
    const note = this.#database.prepare('INSERT OR REPLACE INTO facts VALUES (?, ?)');
    note.run('walked', String(walkedAt));
    if (walk === 'all' || this.#isFilling) note.run('checked', String(walkedAt));
  }

  #saveFolder({ path, mtime, foreignFiles, uploads }: KnownFolder & { foreignFiles: number }): void {
    if (mtime === '') this.#database.prepare('DELETE FROM folders WHERE path = ?').run(path);
    else {
      const isSettled = Number(BigInt(mtime) / 1_000_000n) < Date.now() - SETTLED_MS;
      this.#database
        .prepare('INSERT OR REPLACE INTO folders (path, mtime, foreign_files, uploads) VALUES (?, ?, ?, ?)')
        .run(path, isSettled ? mtime : 'unsettled', foreignFiles, uploads);
    }
  }

  /** Walks one directory and returns its subdirectories and the number of foreign files. */
  #walkFolder(folder: string, walk: Walk): { folders: readonly string[]; foreignFiles: number; uploads: number } {
    const { groups, folders, foreignFiles } = this.#lister.listGroups(folder);
    const rows = this.#database
      .prepare("SELECT name, has, stamp FROM uploads WHERE folder = ? AND place = ''")
      .all(folder);
    const known = new Map(
      rows.map(({ name, has, stamp }) => [name as string, { has: has as number, stamp: stamp as string }]),
    );
    for (const [name, bits] of groups) {
      this.#advance();
      const old = known.get(name);
      known.delete(name);
      if (old && this.#isSame(name, bits, old, walk)) continue;
      const text = this.#isFilling ? this.#readTexts?.(name, bits) : undefined;
      const upload = readUpload(this.#locker, name, this.#parseName, { name, has: unpackFiles(bits) }, text);
      if (upload) this.#put(upload, text);
    }
    for (const name of known.keys()) this.#remove(name);
    return { folders, foreignFiles, uploads: groups.size };
  }

  #isSame(name: string, bits: number, old: { has: number; stamp: string }, walk: Walk): boolean {
    if (bits !== old.has) return false;
    const group = { name, has: unpackFiles(bits) };
    if (!group.has.has('rdy')) return stampBroken(this.#locker, group).stamp === old.stamp;
    if (walk === 'changed') return true;
    const ready = statGroupFile(this.#locker, name, 'rdy');
    return ready !== undefined && stampReady(ready) === old.stamp;
  }

  /** Reads uploads that arrived or broke off since a time. */
  #walkSince({ since, isClient }: Window): void {
    const from = since ? since.getTime() - CLOCK_MS : Number.NEGATIVE_INFINITY;
    const visit = (folder: string): void => {
      const { groups, folders } = this.#lister.listGroups(folder);
      for (const [name, bits] of groups) {
        const { clientId } = isClient ? (this.#parseName(name) ?? {}) : {};
        if (clientId !== undefined && isClient && !isClient(clientId)) continue;
        const group = { name, has: unpackFiles(bits) };
        if (since && group.has.has('rdy') && (statGroupFile(this.#locker, name, 'rdy')?.mtimeMs ?? 0) < from) continue;
        if (since && !group.has.has('rdy') && stampBroken(this.#locker, group).at < from) continue;
        this.#look(name, group);
      }
      for (const child of folders) visit(child);
    };
    visit('.');
  }
}

export interface Steps {
  /** Called for each upload and each line that is read. */
  advance?: () => void;
}

function tryLocate(site: Site, text: string, file: number): Located | undefined {
  try {
    return locate(site, text, file);
  } catch {
    return undefined;
  }
}

function noLog(site: Site): Failure {
  return new Failure('failed', `${join(logFolders(site)[0] ?? '', LOG)}: there is no log`, 'EnableLogging=N?');
}

function listCustody(folder: string, isKeeping: boolean): string[] {
  try {
    return listCustodyFiles(folder)
      .filter(({ serverId }) => (serverId === WRITER) === isKeeping)
      .map(({ file }) => join(folder, file));
  } catch (error) {
    throw new Failure('failed', `${folder}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}

interface CustodyEvent extends Record<string, unknown> {
  event?: unknown;
  name?: unknown;
  time?: unknown;
  groups?: { name?: unknown; jobId?: unknown; files?: { rdy?: unknown } }[];
}

/** Parses a record; undefined for a line that is not a record. */
function parseFacts(text: string): CustodyEvent | undefined {
  const record = parseCustody(text);
  try {
    return record ? JSON.parse(record.text) : undefined;
  } catch {
    return undefined;
  }
}

const TAKEN_FILES = unpackFiles(packFiles(new Set(['rdy'])));

function takenUpload(
  { name, jobId: given }: { name?: unknown; jobId?: unknown },
  time: number,
  parseName: ParseName,
): ReadUpload {
  const jobId = typeof given === 'string' ? encodeField(given) : undefined;
  const { clientId, command } = parseName(String(name), jobId) ?? {};
  return {
    name: String(name),
    place: takenPlace(jobId),
    has: TAKEN_FILES,
    at: time || 0,
    stamp: '',
    bytes: 0,
    jobId,
    clientId,
    command,
    isNamed: clientId !== undefined && command !== undefined,
    ending: undefined,
  };
}

/**
 * Whether this is a relative path that stays below the locker: any process that can write to the
 * log directory can record any path.
 */
function isUploadName(name: unknown): name is string {
  return typeof name === 'string' && !/(?:^|\/)\.{0,2}(?:\/|$)|\0/.test(name);
}

function oldestOf(lines: readonly Located[]): Date | undefined {
  const at = lines.reduce((oldest, line) => Math.min(oldest, line.at), Number.POSITIVE_INFINITY);
  return Number.isFinite(at) ? new Date(at) : undefined;
}

/** Checks the locker. Throws Failure `failed` when it does not exist. */
function checkLocker(locker: string): void {
  try {
    statSync(locker);
  } catch (error) {
    throw new Failure('failed', `${locker}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}

/** The modification time of a directory as text; empty when it does not exist. */
function mtimeOf(path: string): string {
  return String(lstatSync(path, { throwIfNoEntry: false, bigint: true })?.mtimeNs ?? '');
}
