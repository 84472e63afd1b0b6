// The only reader of a site's custody records: what each upload contained when it was deposited,
// and which uploads webjobctl removed. It reads the records of every server, segment by segment,
// from their first line, and continues where it stopped when more is appended. It needs about fifty
// bytes of memory for each upload.
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import {
  Chain,
  type ChainFault,
  type CustodyFile,
  custodyPath,
  digestRange,
  type Link,
  listCustodyFiles,
  MAX_RECORD_BYTES,
  parseCustody,
  parseCustodyName,
  readLines,
  readLink,
  STREAMS,
  type StreamName,
  searchChain,
  segmentName,
} from 'webjob-locker';
import { escapeAscii } from 'webjob-protocol';
import { WRITER } from './events.ts';
import type { Finding } from './finding.ts';
import { isInShare, NameTable, type Share } from './names.ts';
import { FEW_BYTES, seekBehind, seekRecord } from './seek.ts';

/** An upload as the custody record describes it. */
export interface Deposit {
  name: string;
  time: Date;
  jobId: string;
  /** The client and the command; undefined for an upload that was adopted. */
  clientId: string | undefined;
  fileName: string | undefined;
  bytes: Record<StreamName, number>;
  sha256: Record<StreamName, string>;
  /** SHA-256 of the streams that the client sent, when a PutHook changed them. */
  received?: Record<StreamName, string> | undefined;
  /** When the request arrived, as the server wrote it. */
  receivedAt: string | undefined;
  /** The fault in the chain before this record, if there is one. */
  fault: ChainFault | undefined;
}

/** An upload that was replaced by another one of the same name. */
export interface Replaced {
  name: string;
  time: Date;
  jobId: string | undefined;
}

/** An archive that was made, and neither removed nor unpacked since. */
export interface RecordedPack {
  name: string;
  /** When the archive was recorded. */
  time: Date;
  archiveBytes: number;
  archiveSha256: string;
  manifestSha256: string;
}

/** One segment of a custody record. */
export interface Book {
  /**
   * The name of the segment in findings: the file name, or the path when a site has several log
   * directories.
   */
  place: string;
  serverId: string;
  number: number;
  stats: Stats;
  /** The log directory; undefined for the copy that a witness kept. */
  folder: string | undefined;
  /** The path below the log directory. */
  file: string;
}

/** An offset in a segment, at the end of a record. */
export interface Mark {
  size: number;
  /** The time of the newest record before the offset, in milliseconds. */
  newest: number;
}

/** The part of a segment that is already known. */
export interface Known extends Mark {
  /**
   * In webjobctl's record: offsets of the known records that concern archives or end the segment;
   * undefined when they were not noted.
   */
  turns?: readonly number[] | undefined;
}

/** The copy of a record that a witness kept. */
export interface OldBook {
  file: string;
  fd: number;
}

interface OpenBook extends Book {
  row: Row;
  /** The open file; undefined when it is opened for each read. */
  fd: number | undefined;
  /** The walk of the segment; undefined when the segment is read to its end. */
  chain: Chain | undefined;
  /** The offset up to which the segment was searched. */
  searched: number;
  /** The offset after the last record that was read; 0 before the first. */
  size: number;
  /** The time of the newest record, in milliseconds. */
  newest: number;
  /** Some offsets in ascending order, the first where this process began to read. */
  marks: Mark[];
  /** In webjobctl's record: offsets of records that concern archives or end the segment. */
  turns: number[] | undefined;
  /** Whether root has written a record here that confirms everything before it. */
  hasGenesis: boolean;
  /** Whether the last record names the next segment. */
  isSealed: boolean;
  /** Whether the segment contains a record that only another writer can have written. */
  isForeign: boolean;
  isSkipped: boolean;
  /** Offsets of records after which the chain does not match. */
  broken: Set<number>;
  /** Bytes that no record covers and that are not a record. */
  torn: Link[];
}

/** The segments of one custody record. */
interface Row {
  folder: string | undefined;
  serverId: string;
  books: OpenBook[];
  /** Segments that existed at the start and have not been read. */
  waiting: CustodyFile[];
}

/** An archive with the places of the records that name its uploads. */
type KnownPack = RecordedPack & { records: { book: OpenBook; from: number }[] };

/** The records name more uploads than may be kept in memory at once. */
export class TooManyNames extends Error {}

export interface RecordsOptions {
  /** With more names than this, TooManyNames is thrown. */
  mostNames?: number | undefined;
  old?: readonly OldBook[];
  /** Keep only names of this share. */
  share?: Share;
  /** Selects jobs whose uploads are noted. */
  watch?: ((jobId: string) => boolean) | undefined;
  /**
   * Whether to read a segment only for an upload that is in no other segment. `isLast` says that
   * the record may continue in this segment.
   */
  skip?: ((folder: string, file: CustodyFile, isLast: boolean) => boolean) | undefined;
  /** How much of a segment need not be read. The caller has checked that this part is unchanged. */
  resume?: ((folder: string, file: CustodyFile) => Known | undefined) | undefined;
  /**
   * Look only at records that contain one of these names or job ids. This takes a twentieth of the
   * time, but does not check the record as a whole.
   */
  only?: readonly string[] | undefined;
  /** With `only`: records older than this time in milliseconds need not be looked at. */
  from?: number | undefined;
  /** With `only`: records newer than this time in milliseconds need not be looked at. */
  to?: number | undefined;
}

/** How much of one custody record was read. */
export interface Extent {
  /**
   * Segments in order, with the size of the part that was read; undefined for one that was skipped.
   */
  segments: { file: string; size: number | undefined }[];
  isSound: boolean;
}

const PACK = /^\d{4}-\d\d-\d\d(?:\.\d+)?$/;
/** Events that remove an upload from the locker. */
const DEPARTURES: readonly unknown[] = ['prune', 'pack'];
/** Events that only webjobctl records, and events that only a server records. */
const KEEPING: readonly unknown[] = [
  ...DEPARTURES,
  'unpack',
  'prune-pack',
  'adopt',
  'hold',
  'release',
  'evidence',
  'note',
  'verify',
  'download',
];
/** Events of webjobctl that must be known even from parts of its record that are not read again. */
const TURNS: readonly unknown[] = ['pack', 'unpack', 'prune-pack', 'seal'];
const RECEIVING: readonly unknown[] = ['deposit', 'replaced'];
const USUAL_RECORD_BYTES = 2048;
const ALL: Share = { index: 0, count: 1 };
const MAX_OPEN = 32;
/** The minimum distance in bytes between two marks. */
const MARK_BYTES = 1024 * 1024;
/**
 * The texts by which records of webjobctl are found: uploads that were archived, changes to an
 * archive that do not name its uploads, and the end of a segment.
 */
const PACK_TEXT = eventText('pack');
const RETURN_TEXTS = ['unpack', 'prune-pack'].map(eventText);
const SEAL_TEXT = eventText('seal');
/**
 * The end record is at most this far from the end of its segment: only processes that were already
 * writing append after it.
 */
const SEAL_BYTES = 1024 * 1024;
/**
 * The maximum number of names to search for in parts that were not read; for more names, everything
 * is read.
 */
const MOST_SEARCHED = 32;

export class CustodyRecords {
  readonly #folders: readonly string[];
  readonly #options: RecordsOptions;
  readonly #share: Share;
  readonly #files = new OpenFiles();
  /** The texts to search for; undefined when everything is read. */
  readonly #texts: readonly string[] | undefined;
  #rows: Row[] = [];
  #books: OpenBook[] = [];
  #isPartial = false;
  #mustRead = false;
  /** Whether the parts that were read are not enough to answer. */
  #mustReadAll = false;
  #names = new NameTable();
  #faults: Finding[] = [];
  /** Archives by the digest of the file, because a name can be used again after `unpack`. */
  #packs = new Map<string, KnownPack>();
  /**
   * Names that were deposited again after an upload of them was archived; undefined until it is
   * computed.
   */
  #reused: Map<string, RecordedPack> | undefined;
  /** Archives whose uploads were unpacked, to be applied when every segment is read. */
  #returns: { pack: KnownPack; time: number }[] = [];
  /**
   * When recording began: the time of the first record, or of an empty file that still waits for
   * it.
   */
  #since = Number.POSITIVE_INFINITY;
  /** Uploads that were replaced by others of the same name. */
  #replaced: Replaced[] = [];
  #count = 0;
  /** The uploads of watched jobs: their job ids, and the archives that they were last put into. */
  readonly watched = new Map<string, { jobId: string; pack: string | undefined }>();

  /**
   * Finds the custody records in these directories, to be read after the `old` ones; refresh()
   * reads them. Takes over all descriptors and closes them. Throws the error of the system call.
   */
  constructor(folders: readonly string[], options: RecordsOptions = {}) {
    this.#folders = folders;
    this.#options = options;
    this.#share = options.share ?? ALL;
    this.#texts = options.only?.map(quoted);
    this.#rows = this.#listRows();
  }

  get books(): readonly Book[] {
    return this.#books;
  }

  /** The part that was read of each segment without findings. */
  sound(): ({ folder: string; file: string; marks: readonly Mark[] } & Known)[] {
    return this.#books.flatMap(({ folder, file, size, newest, marks, turns, isSkipped, place }) =>
      folder === undefined || isSkipped || this.#faults.some((fault) => fault.place === place)
        ? []
        : [{ folder, file, size, newest, marks, turns }],
    );
  }

  /** The part that was read of every custody record, including webjobctl's. */
  extents(): Extent[] {
    return this.#rows
      .filter(({ folder }) => folder !== undefined)
      .map((row) => ({
        segments: row.books.map(({ file, size, isSkipped }) => ({ file, size: isSkipped ? undefined : size })),
        isSound:
          this.#findGaps(row).length === 0 &&
          !row.books.some(({ place }) => this.#faults.some((fault) => fault.place === place)),
      }));
  }

  /**
   * Yields the uploads that were deposited or adopted since a time in milliseconds, including those
   * removed later.
   */
  *since(instant: number): Generator<Deposit> {
    // The caller may read more records between two results, and then rows move.
    const found: { book: OpenBook | undefined; from: number; isIt: (name: string) => boolean }[] = [];
    for (const row of this.#names.rows())
      if ((this.#names.time[row] ?? 0) >= instant)
        found.push({ book: this.#bookOf(row), from: this.#names.at[row] ?? 0, isIt: this.#names.matcher(row) });
    for (const { book, from, isIt } of found) {
      const deposit = book && this.#read(book, from, isIt);
      if (deposit) yield deposit;
    }
  }

  /** The first segments of server records that do not begin with root's record. */
  rootless(): { folder: string; file: string }[] {
    return this.#rows.flatMap(({ folder, serverId, books }) =>
      folder === undefined || serverId === WRITER || books.some(({ hasGenesis }) => hasGenesis)
        ? []
        : [{ folder, file: segmentName(custodyPath(folder, serverId), 1) }],
    );
  }

  /** The number of records that were read. */
  get count(): number {
    return this.#count;
  }

  /** Whether a server of the site keeps a custody record. */
  get hasBegun(): boolean {
    return this.#since < Number.POSITIVE_INFINITY;
  }

  /** Whether an upload that arrived at `time` must be recorded. */
  covers(time: number): boolean {
    return time >= this.#since;
  }

  /** Reads the records that were appended. Throws the error of the system call. */
  refresh(): void {
    for (const row of this.#rows) this.#readOn(row);
    if (this.#mustReadAll) {
      this.#readAll();
      return;
    }
    for (const { pack, time } of this.#returns.splice(0)) this.#return(pack, time);
  }

  /** Findings on the part of the records that was read. */
  findFaults(): Finding[] {
    const torn = ({ place, chain, torn: known }: OpenBook): Finding[] =>
      (chain?.findTorn() ?? known).map(({ from, to }) => describeFault(place, { from, to, fault: 'torn' }));
    return [...this.#faults, ...this.#books.flatMap(torn), ...this.#rows.flatMap((row) => this.#findGaps(row))];
  }

  /** Reports segments that another segment names and that are missing. */
  #findGaps({ folder, serverId, books }: Row): Finding[] {
    const last = books.at(-1);
    if (folder === undefined || !last) return [];
    const path = custodyPath(folder, serverId);
    const numbers = [...books.map(({ number }) => number), last.number + (last.isSealed ? 2 : 1)];
    return numbers.flatMap((number, index) => {
      const missing = (numbers[index - 1] ?? 0) + 1;
      const count = number - missing;
      if (count === 0) return [];
      const whole =
        count === 1 ? 'a segment of the custody record, and it is' : `${count} segments from this one on, and they are`;
      return [
        {
          kind: 'custody-missing',
          place: this.#placeOf(folder, segmentName(path, missing)),
          detail: `${whole} missing`,
        },
      ];
    });
  }

  /**
   * The last deposit of a name, even when the upload was removed since, because it may have been
   * restored.
   */
  find(name: string): Deposit | undefined {
    return this.#depositAt(this.#find(name), name);
  }

  /** Whether an upload should be in the locker. */
  isExpected(name: string): boolean {
    return this.#isExpected(this.#find(name));
  }

  /** The row of a name. For an unknown name, everything that was skipped is read first. */
  #find(name: string): number {
    const row = this.#names.find(name);
    if (!this.#isPartial || (row >= 0 && this.#names.file[row] !== 0)) return row;
    this.#readAll();
    return this.#names.find(name);
  }

  /** Notes that an upload is present, so that it is not reported as missing. */
  markSeen(name: string): void {
    this.#names.markSeen(name);
  }

  /** Yields the uploads that should be present and were not seen. */
  *unseen(): Generator<Deposit> {
    for (const row of this.#names.unseen()) {
      const deposit = this.#isExpected(row) ? this.#depositAt(row) : undefined;
      if (deposit) yield deposit;
    }
  }

  /** The uploads that were replaced by others of the same name, oldest first for each server. */
  replaced(): readonly Replaced[] {
    return this.#replaced;
  }

  /** The archive with an earlier upload of this name. */
  packOf(name: string): RecordedPack | undefined {
    if (!this.#isReused(name)) return undefined;
    this.#reused ??= this.#findReused();
    return this.#reused.get(name);
  }

  /** Whether a name was deposited again after its upload was removed. */
  #isReused(name: string): boolean {
    const row = this.#names.find(name);
    const { time, gone } = this.#names;
    return row >= 0 && (gone[row] ?? 0) > 0 && (time[row] ?? 0) > (gone[row] ?? 0);
  }

  #findReused(): Map<string, RecordedPack> {
    const found = new Map<string, RecordedPack>();
    for (const pack of this.#packs.values())
      for (const { book, from } of pack.records)
        for (const name of this.#namesIn(readFacts(this.#fdOf(book), from) ?? {}))
          if (this.#isReused(name)) found.set(name, pack);
    return found;
  }

  /**
   * The last deposits of these names up to a time in milliseconds, even if the names were deposited
   * again later.
   */
  before(names: ReadonlySet<string>, instant: number): Map<string, Deposit> {
    const found = new Map<string, Deposit>();
    if (names.size === 0) return found;
    for (const book of this.#books)
      withOpen(book, (fd) => {
        for (const line of readLines(fd, 0)) {
          const { facts, from = 0 } = readLink(line) ?? {};
          if (!facts || Date.parse(String(facts.time)) > instant) continue;
          for (const { name } of depositsIn(facts)) {
            const deposit = names.has(name) ? readDeposit(fd, from, name) : undefined;
            if (deposit && deposit.time >= (found.get(name)?.time ?? deposit.time)) found.set(name, deposit);
          }
        }
      });
    return found;
  }

  /** The archives that should exist. */
  packs(): RecordedPack[] {
    return [...this.#packs.values()];
  }

  /** Closes all files except the copies in `kept`, which are read further. */
  close(kept: readonly OldBook[] = []): void {
    const fds = new Set(kept.map(({ fd }) => fd));
    for (const { fd } of this.#books) if (fd !== undefined && !fds.has(fd)) closeSync(fd);
    this.#files.close();
  }

  /** Lists all records, webjobctl's last, because it removes what others have deposited. */
  #listRows(): Row[] {
    const { old = [] } = this.#options;
    const rows: Row[] = old.map(({ file, fd }) => {
      const { serverId, number } = parseCustodyName(file) ?? { serverId: WRITER, number: 1 };
      const row: Row = { folder: undefined, serverId, books: [], waiting: [] };
      this.#add(
        row,
        { place: `the witness of ${file}`, serverId, number, stats: fstatSync(fd), folder: undefined, file },
        fd,
      );
      return row;
    });
    for (const folder of this.#folders)
      for (const file of listCustodyFiles(folder)) {
        const { serverId } = file;
        const last = rows.at(-1);
        if (last?.serverId === serverId && last.folder === folder) last.waiting.push(file);
        else rows.push({ folder, serverId, books: [], waiting: [file] });
      }
    return rows.sort((a, b) => Number(a.serverId === WRITER) - Number(b.serverId === WRITER));
  }

  #add(row: Row, book: Book, fd: number | undefined): OpenBook {
    const chain = fd === undefined ? undefined : new Chain(fd);
    const nothing = {
      searched: 0,
      size: 0,
      newest: 0,
      hasGenesis: false,
      isSealed: false,
      isForeign: false,
      isSkipped: false,
    };
    const lists = { marks: [], turns: book.serverId === WRITER ? [] : undefined, broken: new Set<number>(), torn: [] };
    const opened: OpenBook = { ...book, row, fd, chain, ...nothing, ...lists };
    row.books.push(opened);
    this.#books.push(opened);
    return opened;
  }

  #placeOf(folder: string, file: string): string {
    return this.#folders.length > 1 ? join(folder, file) : file;
  }

  /** Reads a record to its end, also when it continues in a new segment. */
  #readOn(row: Row): void {
    for (const book of row.books) this.#walk(book);
    for (let next = this.#nextOf(row); next; next = this.#nextOf(row)) {
      this.#walk(this.#open(row, next));
      for (const book of row.books.slice(0, -1)) if (book.isSealed) release(book);
    }
  }

  #nextOf({ folder, serverId, books, waiting }: Row): CustodyFile | undefined {
    const last = books.at(-1);
    const first = waiting.shift();
    if (first || !last?.isSealed || folder === undefined) return first;
    const number = last.number + 1;
    const file = segmentName(custodyPath(folder, serverId), number);
    return lstatSync(join(folder, file), { throwIfNoEntry: false }) ? { file, serverId, number } : undefined;
  }

  #open(row: Row, segment: CustodyFile): OpenBook {
    const { folder = '', waiting } = row;
    const { file, serverId, number } = segment;
    const book = { place: this.#placeOf(folder, file), serverId, number, folder, file };
    if (this.#mustRead || !this.#options.skip?.(folder, segment, waiting.length === 0)) {
      const fd = openCustodyFile(join(folder, file));
      const opened = this.#add(row, { ...book, stats: fstatSync(fd) }, fd);
      const known = this.#mustRead ? undefined : this.#options.resume?.(folder, segment);
      if (known) this.#resume(opened, known);
      return opened;
    }
    this.#isPartial = true;
    const skipped = this.#add(row, { ...book, stats: lstatSync(join(folder, file)) }, undefined);
    skipped.isSkipped = true;
    return skipped;
  }

  #resume(book: OpenBook, { size, newest, turns }: Known): void {
    const isKeeping = book.serverId === WRITER;
    const older = isKeeping ? this.#depositedBefore(newest) : [];
    if (!older) return;
    const known = book.chain?.resume(size);
    if (!known) return;
    if (isKeeping) this.#takeKept(book, size, older, turns);
    Object.assign(book, { size, newest, marks: [{ size, newest }], isSealed: known.isSealed });
    this.#isPartial = true;
    if (!isKeeping) this.#begin(this.#fdOf(book), book.stats);
  }

  /**
   * The recorded uploads that were deposited up to a time; undefined when they are too many to
   * search for.
   */
  #depositedBefore(instant: number): string[] | undefined {
    const { file, time } = this.#names;
    const rows: number[] = [];
    for (const row of this.#names.rows()) {
      if (file[row] !== 0 && (time[row] ?? 0) <= instant) rows.push(row);
      if (rows.length > MOST_SEARCHED) return undefined;
    }
    return rows.flatMap((row) => this.#depositAt(row)?.name ?? []);
  }

  /**
   * Applies the records of webjobctl before offset `end` that concern archives or the named
   * uploads. Without `turns`, the archives must be searched for, which takes as long as everything
   * else together.
   */
  #takeKept(book: OpenBook, end: number, names: readonly string[], turns: readonly number[] | undefined): void {
    const fd = this.#fdOf(book);
    for (const from of turns ?? []) {
      const link = linkAt(fd, from);
      if (link) this.#take(book, link);
      else this.#mustReadAll = true;
    }
    const texts = [...names.map(quoted), ...(turns ? [] : [SEAL_TEXT, ...RETURN_TEXTS, PACK_TEXT])];
    if (texts.length === 0) return;
    const taken = new Set(turns);
    for (const link of searchChain(fd, 0, texts)) {
      if (link.from >= end) return;
      if (!taken.has(link.from)) this.#take(book, link);
    }
  }

  #walk(book: OpenBook): void {
    const { chain, number, serverId, stats, folder } = book;
    if (!chain) return;
    if (this.#texts) {
      this.#search(book, this.#texts);
      return;
    }
    for (const link of chain.walk()) {
      if (book.size === 0 && number > 1 && folder !== undefined && link.record) this.#checkBinding(book, link);
      if (link.record) book.size = link.to;
      this.#take(book, link);
      const { size, newest, marks } = book;
      if (link.record && size - (marks.at(-1)?.size ?? 0) >= MARK_BYTES) marks.push({ size, newest });
    }
    if (chain.isLost) {
      this.#mustReadAll = true;
      return;
    }
    book.size = chain.size;
    if (chain.size === 0 && number === 1 && serverId !== WRITER) this.#since = Math.min(this.#since, stats.birthtimeMs);
  }

  /**
   * Reads only the records that contain one of the names. Every additional text takes as long
   * again, so changes to archives are searched for only after a record of an archive was found.
   */
  #search(book: OpenBook, names: readonly string[]): void {
    const fd = this.#fdOf(book);
    const { number, serverId } = book;
    const { from, to } = this.#options;
    if (book.searched === 0 && number === 1 && serverId !== WRITER) this.#begin(fd, book.stats);
    const searched = book.searched === 0 && from !== undefined ? seekRecord(fd, from) : book.searched;
    const end = to === undefined ? undefined : seekBehind(fd, to);
    let texts = this.#packs.size > 0 ? [...names, ...RETURN_TEXTS] : names;
    let links = searchChain(fd, searched, serverId === WRITER ? texts : names, end);
    let step = links.next();
    for (; !step.done; step = links.next()) {
      this.#take(book, step.value);
      if (serverId !== WRITER || texts !== names || this.#packs.size === 0) continue;
      texts = [...names, ...RETURN_TEXTS];
      links = searchChain(fd, step.value.to, texts, end);
    }
    const last = end === undefined ? step.value : fstatSync(fd).size;
    for (const link of searchChain(fd, Math.max(searched, last - SEAL_BYTES), [SEAL_TEXT]))
      if (link.facts?.event === 'seal') book.isSealed = true;
    book.searched = step.value;
  }

  /** Notes the first record of a server. */
  #begin(fd: number, { birthtimeMs }: Stats): void {
    let begun = birthtimeMs;
    for (const line of readLines(fd, 0, FEW_BYTES)) {
      const { facts } = readLink(line) ?? {};
      if (facts) begun = Number.POSITIVE_INFINITY;
      if (!facts || facts.event === 'genesis') continue;
      begun = Date.parse(String(facts.receivedAt ?? facts.time));
      break;
    }
    if (begun < this.#since) this.#since = begun;
  }

  /**
   * The first record of a segment must commit to the previous segment up to the end of its seal.
   */
  #checkBinding({ row, number, place }: OpenBook, { facts, from, to }: Link): void {
    const before = row.books.find((book) => book.number === number - 1);
    if (!before || (facts?.event === 'segment' && this.#isBound(before, facts.follows))) return;
    const detail = `the record in bytes ${from} to ${to} does not bind it to the end of ${before.file}`;
    this.#faults.push({ kind: 'custody-broken', place, detail });
  }

  #isBound(before: OpenBook, follows: unknown): boolean {
    const { file, covers, prev } = (follows ?? {}) as { file?: unknown; covers?: unknown; prev?: unknown };
    const [from, to] = Array.isArray(covers) ? covers : [];
    if (file !== before.file || !Number.isSafeInteger(from) || !Number.isSafeInteger(to) || from < 0 || to < from)
      return false;
    const fd = this.#fdOf(before);
    if (to > fstatSync(fd).size || digestRange(fd, from, to) !== prev) return false;
    for (const line of readLines(fd, from)) {
      if (line.to < to) continue;
      const record = parseCustody(line.text);
      return (
        line.to === to && record !== undefined && record.covers[1] === from && record.text.includes(',"event":"seal",')
      );
    }
    return false;
  }

  /** Starts over and reads the skipped parts too. */
  #readAll(): void {
    for (const { fd, folder } of this.#books) if (fd !== undefined && folder !== undefined) closeSync(fd);
    this.#mustRead = true;
    this.#mustReadAll = false;
    this.#isPartial = false;
    this.#books = [];
    this.#names = new NameTable();
    this.#faults = [];
    this.#packs = new Map();
    this.#returns = [];
    this.#since = Number.POSITIVE_INFINITY;
    this.#replaced = [];
    this.#count = 0;
    this.watched.clear();
    this.#rows = this.#listRows();
    this.refresh();
  }

  #fdOf({ fd, folder, file }: OpenBook): number {
    return fd ?? this.#files.open(join(folder ?? '', file));
  }

  #bookOf(row: number): OpenBook | undefined {
    return this.#books[(this.#names.file[row] ?? 0) - 1];
  }

  #isExpected(row: number): boolean {
    const { file, time, gone } = this.#names;
    return row >= 0 && file[row] !== 0 && (time[row] ?? 0) > (gone[row] ?? 0);
  }

  /**
   * The deposit of a row. Without a name, the upload is identified by its row in a record of
   * several uploads.
   */
  #depositAt(row: number, name?: string): Deposit | undefined {
    const book = row < 0 ? undefined : this.#bookOf(row);
    return book && this.#read(book, this.#names.at[row] ?? 0, name ?? this.#names.matcher(row));
  }

  #read(book: OpenBook, from: number, which: string | ((name: string) => boolean)): Deposit | undefined {
    const deposit = readDeposit(this.#fdOf(book), from, which);
    return deposit && { ...deposit, fault: book.broken.has(from) ? 'broken' : undefined };
  }

  #take(book: OpenBook, link: Link): void {
    this.#count++;
    this.#reused = undefined;
    if (link.fault) this.#faults.push(describeFault(book.place, link));
    const { facts } = link;
    if (!facts || link.fault === 'edited') return;
    if (link.fault) book.broken.add(link.from);
    const time = Date.parse(String(facts.time)) || 1;
    book.newest = Math.max(book.newest, time);
    // The upload's lock is made before the record is written, and the .rdy keeps the time of the
    // lock.
    const begun = Date.parse(String(facts.receivedAt ?? facts.time));
    const isServers = book.serverId !== WRITER && facts.event !== 'genesis';
    if (isServers && begun < this.#since) this.#since = begun;
    if (facts.event === 'genesis') book.hasGenesis = true;
    if (facts.event === 'seal') book.isSealed = true;
    if (TURNS.includes(facts.event)) book.turns?.push(link.from);
    this.#checkWriter(book, link, facts);
    for (const { name, jobId } of depositsIn(facts)) this.#deposit(book, link.from, name, jobId, time);
    if (facts.event === 'replaced' && isName(facts.name)) {
      const jobId = typeof facts.jobId === 'string' ? facts.jobId : undefined;
      this.#replaced.push({ name: facts.name, time: new Date(time), jobId });
    }
    if (book.serverId === WRITER) this.#takePack(book, link.from, facts, time);
    // Only webjobctl can record a removal.
    if (book.serverId !== WRITER || !DEPARTURES.includes(facts.event)) return;
    for (const name of this.#namesIn(facts)) {
      const row = this.#rowOf(name);
      this.#names.gone[row] = Math.max(this.#names.gone[row] ?? 0, time);
      const watched = this.watched.get(name);
      if (watched && facts.event === 'pack') watched.pack = String(facts.pack);
    }
  }

  /** A record by another writer was inserted here, or the whole file was copied from elsewhere. */
  #checkWriter(book: OpenBook, { from, to }: Link, { event, serverId }: Record<string, unknown>): void {
    const isOther = serverId !== undefined && serverId !== book.serverId;
    const isWrong = isOther || (book.serverId === WRITER ? RECEIVING : KEEPING).includes(event);
    if (!isWrong || book.isForeign || book.folder === undefined) return;
    book.isForeign = true;
    const whose = isOther ? `one of ${serverId}` : book.serverId === WRITER ? 'one of a server' : `one of ${WRITER}`;
    this.#faults.push({
      kind: 'custody-foreign',
      place: book.place,
      detail: `the record in bytes ${from} to ${to} is ${whose}`,
    });
  }

  /**
   * The last deposit of a name counts. Uploads of one name take its lock in turn and write their
   * records while they hold it, so within a file the order of records counts, and across files
   * their times.
   */
  #deposit(book: OpenBook, from: number, name: string, jobId: unknown, time: number): void {
    if (this.#options.watch?.(String(jobId))) this.watched.set(name, { jobId: String(jobId), pack: undefined });
    if (!isInShare(name, this.#share)) return;
    const row = this.#rowOf(name);
    const file = this.#books.indexOf(book) + 1;
    const last = this.#names.file[row] ?? 0;
    if (last !== 0 && last !== file && !this.#isLater(book, from, time, row)) return;
    this.#names.file[row] = file;
    this.#names.at[row] = from;
    this.#names.time[row] = time;
  }

  #rowOf(name: string): number {
    const row = this.#names.add(name);
    if (this.#names.size > (this.#options.mostNames ?? Number.POSITIVE_INFINITY)) throw new TooManyNames();
    return row;
  }

  #isLater(book: OpenBook, from: number, time: number, row: number): boolean {
    const last = this.#bookOf(row);
    if (last?.row === book.row) return book.number > last.number;
    const difference = time - (this.#names.time[row] ?? 0);
    if (difference !== 0) return difference > 0;
    // The witness's copy cannot have been changed.
    if (last?.folder === undefined) return false;
    const order = (deposit: Deposit | undefined): string => `${deposit?.receivedAt} ${JSON.stringify(deposit?.sha256)}`;
    const other = this.#depositAt(row);
    return order(readDeposit(this.#fdOf(book), from, other?.name)) > order(other);
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
        name,
        time: new Date(time),
        archiveBytes: Number(archiveBytes),
        records,
        ...digests,
      });
    } else if (known && (event === 'unpack' || event === 'prune-pack')) {
      this.#packs.delete(archiveSha256);
      if (event === 'unpack') this.#returns.push({ pack: known, time });
    }
  }

  /**
   * Applies an `unpack`: the unpacked uploads are the archived ones, even where a later deposit of
   * the name was removed meanwhile.
   */
  #return(pack: KnownPack, time: number): void {
    const packedAt = pack.time.getTime();
    const older = new Set<string>();
    for (const { book, from } of pack.records)
      for (const name of this.#namesIn(readFacts(this.#fdOf(book), from) ?? {})) {
        const row = this.#names.find(name);
        const depositedAt = this.#names.time[row] ?? 0;
        if (row < 0 || depositedAt > time) continue;
        if (depositedAt > packedAt) older.add(name);
        if ((this.#names.gone[row] ?? 0) <= time) this.#names.gone[row] = 0;
      }
    if (older.size > 0) this.#goBack(older, packedAt);
  }

  /** Resets these uploads to their last deposits before a time. */
  #goBack(names: ReadonlySet<string>, instant: number): void {
    for (const name of names) this.#names.file[this.#names.find(name)] = 0;
    for (const book of this.#books)
      withOpen(book, (fd) => {
        for (const { facts, fault, from } of new Chain(fd).walk()) {
          const time = Date.parse(String(facts?.time)) || 1;
          if (!facts || fault === 'edited' || time > instant) continue;
          for (const { name, jobId } of depositsIn(facts))
            if (names.has(name)) this.#deposit(book, from, name, jobId, time);
        }
      });
  }

  #namesIn({ names }: Record<string, unknown>): string[] {
    return Array.isArray(names) ? names.filter((name) => isName(name) && isInShare(name, this.#share)) : [];
  }
}

/**
 * Frees the walk of a sealed segment, to which nothing is appended; the segment is opened again
 * when it is needed.
 */
function release(book: OpenBook): void {
  if (!book.chain || book.fd === undefined) return;
  const { size } = book.chain;
  // A writer that finds half of another writer's line begins a new line, and after a seal no record
  // covers the empty line in between.
  book.torn = book.chain.findTorn().filter(({ from, to }) => to - from > 1 || to >= size);
  book.chain = undefined;
  closeSync(book.fd);
  book.fd = undefined;
}

function eventText(event: string): string {
  return `,"event":"${event}",`;
}

/** A text in the quoted form that records have. */
function quoted(text: string): string {
  return escapeAscii(JSON.stringify(text));
}

/** Runs `work` on a segment that is kept open, or opened for this call. */
function withOpen({ fd, folder, file }: OpenBook, work: (fd: number) => void): void {
  const own = fd ?? openCustodyFile(join(folder ?? '', file));
  try {
    work(own);
  } finally {
    if (fd === undefined) closeSync(own);
  }
}

/** Opens segments again that were read before; only a limited number stays open. */
class OpenFiles {
  readonly #open = new Map<string, number>();

  open(path: string): number {
    const fd = this.#open.get(path) ?? openCustodyFile(path);
    this.#open.delete(path);
    this.#open.set(path, fd);
    const [oldest] = this.#open;
    if (oldest && this.#open.size > MAX_OPEN) {
      closeSync(oldest[1]);
      this.#open.delete(oldest[0]);
    }
    return fd;
  }

  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
  }
}

/**
 * Opens a custody record without following a link, and without blocking on a FIFO or device. Throws
 * the error of the system call.
 */
export function openCustodyFile(path: string): number {
  return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

function describeFault(place: string, { from, to, fault }: Link): Finding {
  const where = `bytes ${from} to ${to}`;
  const details = {
    edited: `the record in ${where} does not match its checksum, or is not JSON`,
    broken: `the records before the one in ${where} were changed, removed, inserted or moved`,
    torn: `${where} are not a record, and no later record covers them`,
  };
  const kind = fault ?? 'torn';
  return { kind: `custody-${kind}`, place, detail: details[kind] };
}

/** Whether this is a relative path that stays below its directory. */
function isName(name: unknown): name is string {
  return typeof name === 'string' && !/(?:^|\/)\.{0,2}(?:\/|$)|\0/.test(name);
}

/** Parses a record that was already checked and therefore is JSON. */
function readFacts(fd: number, from: number): Record<string, unknown> | undefined {
  const record = parseCustody(readLine(fd, from));
  return record && JSON.parse(record.text);
}

/**
 * The uploads in a record. Every field is checked, because any process that can write to the log
 * directory can append a record with any content.
 */
function uploadsIn({ uploads }: Record<string, unknown>): Record<string, unknown>[] {
  return Array.isArray(uploads) ? uploads.filter((upload) => typeof upload === 'object' && upload !== null) : [];
}

/**
 * Yields the uploads that a record registers: one that was deposited, or those that were adopted.
 */
function* depositsIn(facts: Record<string, unknown>): Generator<{ name: string; jobId: unknown }> {
  const uploads = facts.event === 'deposit' ? [facts] : facts.event === 'adopt' ? uploadsIn(facts) : [];
  for (const { name, jobId } of uploads) if (isName(name)) yield { name, jobId };
}

/**
 * Reads a deposit, or the adoption of the upload that `which` selects; undefined when fields are
 * missing.
 */
function readDeposit(fd: number, from: number, which?: string | ((name: string) => boolean)): Deposit | undefined {
  const facts = readFacts(fd, from);
  if (!facts) return undefined;
  const isIt = ({ name }: Record<string, unknown>): boolean =>
    typeof which === 'function' ? which(String(name)) : which === undefined || name === which;
  const upload = facts.event === 'adopt' ? uploadsIn(facts).findLast(isIt) : facts;
  const { name, jobId, clientId, fileName, bytes, sha256, receivedAt } = (upload ?? {}) as Partial<Deposit>;
  const isWhole = STREAMS.every(
    (stream) => typeof sha256?.[stream] === 'string' && typeof bytes?.[stream] === 'number',
  );
  if (!isWhole || !name || jobId === undefined || !bytes || !sha256) return undefined;
  const time = new Date(String(facts.time));
  const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
  const whose = { clientId: text(clientId), fileName: text(fileName) };
  const received = (upload as { received?: { sha256?: Record<StreamName, string> } }).received?.sha256;
  return { name, time, jobId, ...whose, received, bytes, sha256, receivedAt, fault: undefined };
}

/** The record that begins at an offset; undefined when none begins there. */
function linkAt(fd: number, from: number): Link | undefined {
  const text = readLine(fd, from);
  const link = readLink({ text, from, to: from + text.length + 1 });
  return link?.from === from ? link : undefined;
}

function readLine(fd: number, from: number): string {
  for (let length = USUAL_RECORD_BYTES; ; length = MAX_RECORD_BYTES) {
    const buffer = Buffer.allocUnsafe(length);
    const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, length, from));
    const end = text.indexOf('\n');
    if (end >= 0 || length === MAX_RECORD_BYTES) return text.slice(0, Math.max(0, end));
  }
}
