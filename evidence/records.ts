// The one reader of a site's custody records: what each upload was when it was deposited, and which were taken out of the locker on purpose.
// Reads the records of every server of the site, from their first line, and goes on where it stopped when more was appended. Holds some
// fifty bytes for each upload.
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import {
  Chain,
  type ChainFault,
  custodyOwner,
  type Link,
  MAX_RECORD_BYTES,
  parseCustody,
  STREAMS,
  type StreamName,
} from 'webjob-locker';
import { WRITER } from './events.ts';
import type { Finding } from './finding.ts';
import { isInShare, NameTable, type Share } from './names.ts';

/** What a custody record says of an upload. */
export interface Deposit {
  name: string;
  time: Date;
  jobId: string;
  bytes: Record<StreamName, number>;
  sha256: Record<StreamName, string>;
  /** When the request came, as the server wrote it. */
  receivedAt: string | undefined;
  /** What is wrong with what stands before the record in its file. */
  fault: ChainFault | undefined;
}

/** An upload that is no longer there because another took its name. */
export interface Replaced {
  name: string;
  time: Date;
  jobId: string | undefined;
}

/** A pack that was made, and neither removed nor unpacked since. */
export interface RecordedPack {
  name: string;
  /** When it was put on record. */
  time: Date;
  archiveBytes: number;
  archiveSha256: string;
  manifestSha256: string;
}

/** One custody file. */
export interface Book {
  /** How findings call it: its name, or its path where a site has several folders of logs. */
  place: string;
  serverId: string;
  fd: number;
  stats: Stats;
  /** The folder of logs it is in; undefined for the copy that a witness kept. */
  folder: string | undefined;
  file: string;
}

/** What a record was, as a witness kept it. */
export interface OldBook {
  file: string;
  fd: number;
}

interface OpenBook extends Book {
  chain: Chain;
  /** Milliseconds: the time of its newest record. */
  newest: number;
  /** It has a record of which root was the writer, which vouches for what stands before it. */
  hasGenesis: boolean;
  /** Where the records begin of which something before them is not what it was. */
  broken: Set<number>;
}

/** A pack with the places of the records that name its uploads. */
type KnownPack = RecordedPack & { records: { book: OpenBook; from: number }[] };

export interface RecordsOptions {
  old?: readonly OldBook[];
  /** Only names of this share are held. */
  share?: Share;
  /** Jobs of which the uploads are noted. */
  watch?: ((jobId: string) => boolean) | undefined;
}

const PACK = /^\d{4}-\d\d-\d\d(?:\.\d+)?$/;
/** Events after which an upload is no longer in the locker. */
const DEPARTURES: readonly unknown[] = ['prune', 'pack'];
const USUAL_RECORD_BYTES = 2048;
const ALL: Share = { index: 0, count: 1 };

export class CustodyRecords {
  readonly #books: OpenBook[];
  readonly #share: Share;
  readonly #names = new NameTable();
  readonly #faults: Finding[] = [];
  /** By the digest of the archive, as a name comes again after an unpack. */
  readonly #packs = new Map<string, KnownPack>();
  /** Packs of which the uploads came back, to be told when every book is read. */
  #returns: { pack: KnownPack; time: number }[] = [];
  /** Since when a server records: its first record, or a file that waits for one. */
  #since = Number.POSITIVE_INFINITY;
  /** Uploads that were given up for others of the same name. */
  readonly #replaced: Replaced[] = [];
  #count = 0;
  readonly #watch: RecordsOptions['watch'];
  /** The uploads of jobs that are watched: their job ids, and the packs they were put into last. */
  readonly watched = new Map<string, { jobId: string; pack: string | undefined }>();

  /**
   * Opens the custody records in these folders, to be read after `old` ones; refresh() reads them. Closes all of them. Throws the error of the
   * system call.
   */
  constructor(folders: readonly string[], { old = [], share = ALL, watch }: RecordsOptions = {}) {
    this.#share = share;
    this.#watch = watch;
    this.#books = openBooks(folders, old);
  }

  get books(): readonly Book[] {
    return this.#books;
  }

  /** How much of each record was walked, of those in which nothing was found. */
  sound(): { folder: string; file: string; size: number; newest: number }[] {
    return this.#books.flatMap(({ folder, file, chain, place, newest }) => {
      const isSound = folder !== undefined && !this.#faults.some((fault) => fault.place === place);
      return isSound ? [{ folder, file, size: chain.size, newest }] : [];
    });
  }

  /** The uploads that were deposited or adopted since an instant, also those that were taken away. */
  *since(instant: number): Generator<Deposit> {
    for (const row of this.#names.rows()) {
      const deposit = (this.#names.time[row] ?? 0) >= instant ? this.#depositAt(row) : undefined;
      if (deposit) yield deposit;
    }
  }

  /** The records of servers that do not begin with the one that root makes. */
  rootless(): Book[] {
    return this.#books.filter(({ serverId, folder, hasGenesis }) => serverId !== WRITER && folder && !hasGenesis);
  }

  /** How many records were read. */
  get count(): number {
    return this.#count;
  }

  /** A server of the site keeps a record. */
  get hasBegun(): boolean {
    return this.#since < Number.POSITIVE_INFINITY;
  }

  /** An upload that came at `time` must have a record. */
  covers(time: number): boolean {
    return time >= this.#since;
  }

  /** Reads what is new. */
  refresh(): void {
    for (const book of this.#books) {
      for (const link of book.chain.walk()) this.#take(book, link);
      if (book.chain.size === 0 && book.serverId !== WRITER)
        this.#since = Math.min(this.#since, book.stats.birthtimeMs);
    }
    for (const { pack, time } of this.#returns.splice(0)) this.#return(pack, time);
  }

  /** What is wrong with the records themselves, as far as they were read. */
  findFaults(): Finding[] {
    const torn = ({ place, chain }: OpenBook): Finding[] =>
      chain.findTorn().map(({ from, to }) => describeFault(place, { from, to, fault: 'torn' }));
    return [...this.#faults, ...this.#books.flatMap(torn)];
  }

  /** The last deposit of a name, also of one that was taken away since: it may be back. */
  find(name: string): Deposit | undefined {
    return this.#depositAt(this.#names.find(name), name);
  }

  /** True for an upload that ought to be there. */
  isExpected(name: string): boolean {
    return this.#isExpected(this.#names.find(name));
  }

  /** Notes that an upload is there, so that nobody has to look for it again. */
  markSeen(name: string): void {
    this.#names.markSeen(name);
  }

  /** The uploads that ought to be there and were not met. */
  *unseen(): Generator<Deposit> {
    for (const row of this.#names.unseen()) {
      const deposit = this.#isExpected(row) ? this.#depositAt(row) : undefined;
      if (deposit) yield deposit;
    }
  }

  /** Every upload that another of its name has replaced, the oldest of a server first. */
  replaced(): readonly Replaced[] {
    return this.#replaced;
  }

  /** The packs that ought to be there. */
  packs(): RecordedPack[] {
    return [...this.#packs.values()];
  }

  close(): void {
    for (const { fd } of this.#books) closeSync(fd);
  }

  #isExpected(row: number): boolean {
    const { file, time, gone } = this.#names;
    return row >= 0 && file[row] !== 0 && (time[row] ?? 0) > (gone[row] ?? 0);
  }

  /** Without a name, of a record of several uploads the one of the row. */
  #depositAt(row: number, name?: string): Deposit | undefined {
    const book = row < 0 ? undefined : this.#books[(this.#names.file[row] ?? 0) - 1];
    if (!book) return undefined;
    const from = this.#names.at[row] ?? 0;
    const isOf = (other: string): boolean => this.#names.find(other) === row;
    const deposit = readDeposit(book.fd, from, name ?? isOf);
    return deposit && { ...deposit, fault: book.broken.has(from) ? 'broken' : undefined };
  }

  #take(book: OpenBook, link: Link): void {
    this.#count++;
    if (link.fault) this.#faults.push(describeFault(book.place, link));
    const { facts } = link;
    if (!facts || link.fault === 'edited') return;
    if (link.fault) book.broken.add(link.from);
    const time = Date.parse(String(facts.time)) || 1;
    book.newest = Math.max(book.newest, time);
    // A lock stands, with the time that the .rdy will have, before the record is written.
    const begun = Date.parse(String(facts.receivedAt ?? facts.time));
    const isServers = book.serverId !== WRITER && facts.event !== 'genesis';
    if (isServers && begun < this.#since) this.#since = begun;
    if (facts.event === 'genesis') book.hasGenesis = true;
    for (const { name, jobId } of depositsIn(facts)) this.#deposit(book, link.from, name, jobId, time);
    if (facts.event === 'replaced' && isName(facts.name)) {
      const jobId = typeof facts.jobId === 'string' ? facts.jobId : undefined;
      this.#replaced.push({ name: facts.name, time: new Date(time), jobId });
    }
    if (book.serverId === WRITER) this.#takePack(book, link.from, facts, time);
    if (!DEPARTURES.includes(facts.event)) return;
    for (const name of this.#namesIn(facts)) {
      const row = this.#names.add(name);
      this.#names.gone[row] = Math.max(this.#names.gone[row] ?? 0, time);
      const watched = this.watched.get(name);
      if (watched && facts.event === 'pack') watched.pack = String(facts.pack);
    }
  }

  /**
   * Of several deposits of a name the last counts. Uploads of one name take turns at its lock, and each writes its record while it holds it:
   * in one file the order is that of the records, across files that of their times.
   */
  #deposit(book: OpenBook, from: number, name: string, jobId: unknown, time: number): void {
    if (this.#watch?.(String(jobId))) this.watched.set(name, { jobId: String(jobId), pack: undefined });
    if (!isInShare(name, this.#share)) return;
    const row = this.#names.add(name);
    const file = this.#books.indexOf(book) + 1;
    const last = this.#names.file[row] ?? 0;
    if (last !== 0 && last !== file && !this.#isLater(book, from, time, row)) return;
    this.#names.file[row] = file;
    this.#names.at[row] = from;
    this.#names.time[row] = time;
  }

  #isLater(book: OpenBook, from: number, time: number, row: number): boolean {
    const difference = time - (this.#names.time[row] ?? 0);
    if (difference !== 0) return difference > 0;
    // What a witness kept nobody has changed since.
    if (this.#books[(this.#names.file[row] ?? 0) - 1]?.folder === undefined) return false;
    const order = (deposit: Deposit | undefined): string => `${deposit?.receivedAt} ${JSON.stringify(deposit?.sha256)}`;
    const other = this.#depositAt(row);
    return order(readDeposit(book.fd, from, other?.name)) > order(other);
  }

  #takePack(book: OpenBook, from: number, facts: Record<string, unknown>, time: number): void {
    const { event, pack: name, archiveBytes, archiveSha256, manifestSha256 } = facts;
    if (typeof name !== 'string' || !PACK.test(name) || typeof archiveSha256 !== 'string') return;
    const known = this.#packs.get(archiveSha256);
    if (event === 'pack' && typeof manifestSha256 === 'string') {
      const records = known?.records ?? [];
      records.push({ book, from });
      const digests = { archiveSha256, manifestSha256 };
      this.#packs.set(archiveSha256, {
        ...{ name, time: new Date(time), archiveBytes: Number(archiveBytes), records },
        ...digests,
      });
    } else if (known && (event === 'unpack' || event === 'prune-pack')) {
      this.#packs.delete(archiveSha256);
      if (event === 'unpack') this.#returns.push({ pack: known, time });
    }
  }

  /** What came back from a pack is what went into it, also where a later deposit of the name was pruned meanwhile. */
  #return(pack: KnownPack, time: number): void {
    const packedAt = pack.time.getTime();
    const older = new Set<string>();
    for (const { book, from } of pack.records)
      for (const name of this.#namesIn(readFacts(book.fd, from) ?? {})) {
        const row = this.#names.find(name);
        const depositedAt = this.#names.time[row] ?? 0;
        if (row < 0 || depositedAt > time) continue;
        if (depositedAt > packedAt) older.add(name);
        if ((this.#names.gone[row] ?? 0) <= time) this.#names.gone[row] = 0;
      }
    if (older.size > 0) this.#goBack(older, packedAt);
  }

  /** Makes of these uploads the last deposit count that came before an instant. */
  #goBack(names: ReadonlySet<string>, instant: number): void {
    for (const name of names) this.#names.file[this.#names.find(name)] = 0;
    for (const book of this.#books)
      for (const { facts, fault, from } of new Chain(book.fd).walk()) {
        const time = Date.parse(String(facts?.time)) || 1;
        if (!facts || fault === 'edited' || time > instant) continue;
        for (const { name, jobId } of depositsIn(facts))
          if (names.has(name)) this.#deposit(book, from, name, jobId, time);
      }
  }

  #namesIn({ names }: Record<string, unknown>): string[] {
    return Array.isArray(names) ? names.filter((name) => isName(name) && isInShare(name, this.#share)) : [];
  }
}

/** The custody records in these folders, those of webjobctl last: it takes away what others have deposited. */
function openBooks(folders: readonly string[], old: readonly OldBook[]): OpenBook[] {
  const opened: Book[] = old.map(({ file, fd }) => {
    const serverId = custodyOwner(file) ?? WRITER;
    return { place: `the witness of ${file}`, serverId, fd, stats: fstatSync(fd), folder: undefined, file };
  });
  try {
    for (const folder of folders)
      for (const { file, serverId } of listCustodyFiles(folder)) {
        const path = join(folder, file);
        const fd = openCustodyFile(path);
        const place = folders.length > 1 ? path : file;
        opened.push({ place, serverId, fd, stats: fstatSync(fd), folder, file });
      }
  } catch (error) {
    for (const { fd } of opened) closeSync(fd);
    throw error;
  }
  return opened
    .map((book) => ({ ...book, chain: new Chain(book.fd), broken: new Set<number>(), hasGenesis: false, newest: 0 }))
    .sort((a, b) => Number(a.serverId === WRITER) - Number(b.serverId === WRITER));
}

/** Without following a link, and without waiting for what is no file. Throws the error of the system call. */
export function openCustodyFile(path: string): number {
  return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

/** The custody records in a folder, by name. Throws the error of the system call. */
export function listCustodyFiles(folder: string): { file: string; serverId: string }[] {
  return readdirSync(folder)
    .sort()
    .flatMap((file) => {
      const serverId = custodyOwner(file);
      return serverId === undefined ? [] : [{ file, serverId }];
    });
}

function describeFault(place: string, { from, to, fault }: Link): Finding {
  const where = `bytes ${from} to ${to}`;
  const details = {
    edited: `the record in ${where} is not what its sum says, or no JSON`,
    broken: `what stands before the record in ${where} is not what it was bound to: changed, taken out, put in or moved`,
    torn: `${where} are no record, and no later record vouches for them`,
  };
  const kind = fault ?? 'torn';
  return { kind: `custody-${kind}`, place, detail: details[kind] };
}

/** A relative path without a segment that leads elsewhere. */
function isName(name: unknown): name is string {
  return typeof name === 'string' && !/(?:^|\/)\.{0,2}(?:\/|$)|\0/.test(name);
}

/** Of a record that was walked, and so is JSON. */
function readFacts(fd: number, from: number): Record<string, unknown> | undefined {
  const record = parseCustody(readLine(fd, from));
  return record && JSON.parse(record.text);
}

/** Whoever can write in the folder of logs can write a record with anything in it. */
function uploadsIn({ uploads }: Record<string, unknown>): Record<string, unknown>[] {
  return Array.isArray(uploads) ? uploads.filter((upload) => typeof upload === 'object' && upload !== null) : [];
}

/** The uploads that a record puts on record: the one that was deposited, or those that were adopted. */
function* depositsIn(facts: Record<string, unknown>): Generator<{ name: string; jobId: unknown }> {
  const uploads = facts.event === 'deposit' ? [facts] : facts.event === 'adopt' ? uploadsIn(facts) : [];
  for (const { name, jobId } of uploads) if (isName(name)) yield { name, jobId };
}

/** A deposit, or the adoption of an upload that `which` names. What lacks what a deposit tells is none. */
function readDeposit(fd: number, from: number, which?: string | ((name: string) => boolean)): Deposit | undefined {
  const facts = readFacts(fd, from);
  if (!facts) return undefined;
  const isIt = ({ name }: Record<string, unknown>): boolean =>
    typeof which === 'function' ? which(String(name)) : which === undefined || name === which;
  const upload = facts.event === 'adopt' ? uploadsIn(facts).findLast(isIt) : facts;
  const { name, jobId, bytes, sha256, receivedAt } = (upload ?? {}) as Partial<Deposit>;
  const isWhole = STREAMS.every(
    (stream) => typeof sha256?.[stream] === 'string' && typeof bytes?.[stream] === 'number',
  );
  if (!isWhole || !name || jobId === undefined || !bytes || !sha256) return undefined;
  return { name, time: new Date(String(facts.time)), jobId, bytes, sha256, receivedAt, fault: undefined };
}

function readLine(fd: number, from: number): string {
  for (let length = USUAL_RECORD_BYTES; ; length = MAX_RECORD_BYTES) {
    const buffer = Buffer.allocUnsafe(length);
    const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, length, from));
    const end = text.indexOf('\n');
    if (end >= 0 || length === MAX_RECORD_BYTES) return text.slice(0, Math.max(0, end));
  }
}
