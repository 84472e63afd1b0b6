// Every custody record of a site, walked and indexed: what each group was when it was deposited, which were taken away on purpose, and which
// of those came back.
// Holds a name and a number for each deposit, so that millions fit.
import { closeSync, fstatSync, openSync, readdirSync, readSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { Chain, type Link, MAX_RECORD_BYTES, parseCustody, STREAMS, type StreamName } from 'webjob-locker';
import type { Finding } from './finding.ts';

/** What a custody record says of a group. */
export interface Deposit {
  time: Date;
  jobId: string;
  bytes: Record<StreamName, number>;
  sha256: Record<StreamName, string>;
}

interface Book {
  /** Its name in LogfilesDirectory. */
  file: string;
  fd: number;
  stats: Stats;
  chain: Chain;
  /** Where the last record of a deposit begins, plus one; negative when the group was pruned or packed afterwards. */
  places: Map<string, number>;
}

/** A pack as it was made. */
export interface PackRecord {
  name: string;
  archiveSha256: string;
  manifestSha256: string;
  /** Where the records begin that name its groups, for when it is unpacked. */
  records: number[];
}

const PACK_NAME = /^\d{4}-\d\d-\d\d(?:\.\d+)?$/;

/** A group that left the locker, or came back into it. */
interface Move {
  name: string;
  isBack: boolean;
  /** The book that says so, where, and when. */
  places: Book['places'];
  from: number;
  time: number;
}

const FILE = /^nph-webjob-custody\.[A-Za-z0-9_.-]{1,64}\.jsonl$/;
/** What webjobctl writes tells nothing of when a server began. */
const OPERATOR_FILE = 'nph-webjob-custody.webjobctl.jsonl';
/** Events after which a group is no longer in the locker. */
const DEPARTURES = ['prune', 'pack'];
const USUAL_RECORD_BYTES = 2048;

export class CustodyRecords {
  readonly #books: Book[];
  readonly #faults: Finding[] = [];
  #moves: Move[] = [];
  /** Packs that ought to be there, by file, name and digest. */
  readonly #packs = new Map<string, PackRecord>();
  /** Since when a server records: its first record, or a file that waits for one. */
  #since = Number.POSITIVE_INFINITY;

  /** Opens those that are there; refresh() reads them. Throws the error of the system call. */
  constructor(logfilesDirectory: string) {
    this.#books = listCustodyFiles(logfilesDirectory).map((file) => {
      const fd = openSync(join(logfilesDirectory, file), 'r');
      return { file, fd, stats: fstatSync(fd), chain: new Chain(fd), places: new Map() };
    });
  }

  get files(): readonly Pick<Book, 'file' | 'fd' | 'stats' | 'chain'>[] {
    return this.#books;
  }

  /** A group that came at `time` must have a record. */
  covers(time: number): boolean {
    return time >= this.#since;
  }

  /** Reads what is new; `advance` is told of each record. */
  refresh(advance?: () => void): void {
    for (const book of this.#books) {
      for (const link of book.chain.walk()) {
        this.#take(book, link);
        advance?.();
      }
      if (book.chain.size === 0) this.#since = Math.min(this.#since, book.stats.birthtimeMs);
    }
    this.#move();
  }

  /** What is wrong with the records themselves, as far as they were read. */
  findFaults(): Finding[] {
    return [
      ...this.#faults,
      ...this.#books.flatMap(({ file, chain }) =>
        chain.findTorn().map(({ from, to }) => describeFault(file, { from, to, fault: 'torn' })),
      ),
    ];
  }

  /** The last deposit of a name, also of one that was taken away since: it may be back. */
  find(name: string): Deposit | undefined {
    let last: Deposit | undefined;
    for (const { fd, places } of this.#books) {
      const place = places.get(name);
      const deposit = place === undefined ? undefined : readDeposit(fd, Math.abs(place) - 1);
      if (deposit && !(last && last.time > deposit.time)) last = deposit;
    }
    return last;
  }

  /** True for a group that ought to be there. */
  isExpected(name: string): boolean {
    return this.#books.some(({ places }) => (places.get(name) ?? 0) > 0);
  }

  /** The names of all groups that ought to be there. */
  *names(): Generator<string> {
    for (const [index, { places }] of this.#books.entries()) {
      const others = this.#books.slice(0, index);
      for (const [name, place] of places)
        if (place > 0 && !others.some((other) => (other.places.get(name) ?? 0) > 0)) yield name;
    }
  }

  /** Packs that ought to be there. */
  packs(): PackRecord[] {
    return [...this.#packs.values()];
  }

  close(): void {
    for (const { fd } of this.#books) closeSync(fd);
  }

  #take({ file, fd, places }: Book, link: Link): void {
    if (link.fault) this.#faults.push(describeFault(file, link));
    if (!link.record || link.fault === 'edited') return;
    const facts = JSON.parse(link.record.text) as Record<string, unknown>;
    const time = Date.parse(String(facts.time));
    if (facts.event === 'deposit' && isName(facts.name)) places.set(facts.name, link.from + 1);
    // A lock stands, with the time that the .rdy will have, before the record is written.
    const begun = Date.parse(String(facts.receivedAt ?? facts.time));
    if (file !== OPERATOR_FILE && begun < this.#since) this.#since = begun;
    const add = (names: unknown, isBack: boolean): void => {
      if (!Array.isArray(names)) return;
      for (const name of names.filter(isName)) this.#moves.push({ name, isBack, places, from: link.from, time });
    };
    if (DEPARTURES.includes(String(facts.event))) add(facts.names, false);
    const id = `${file} ${facts.pack} ${facts.archiveSha256}`;
    const pack = this.#packs.get(id);
    if (facts.event === 'pack' && PACK_NAME.test(String(facts.pack))) {
      const [archiveSha256, manifestSha256] = [String(facts.archiveSha256), String(facts.manifestSha256)];
      if (pack) pack.records.push(link.from);
      else this.#packs.set(id, { name: String(facts.pack), archiveSha256, manifestSha256, records: [link.from] });
    }
    // The record does not repeat the names.
    if (facts.event === 'unpack') for (const from of pack?.records ?? []) add(readFacts(fd, from)?.names, true);
    if (facts.event === 'unpack' || facts.event === 'prune-pack') this.#packs.delete(id);
  }

  /** Groups that left and came back, once every book is read: another server may have deposited what this one pruned. */
  #move(): void {
    for (const { name, isBack, places, from, time } of this.#moves) {
      for (const book of this.#books) {
        const place = book.places.get(name) ?? 0;
        if (place === 0 || place < 0 !== isBack) continue;
        const start = Math.abs(place) - 1;
        const isBefore = book.places === places ? start < from : Number(readDeposit(book.fd, start)?.time) <= time;
        if (isBefore) book.places.set(name, -place);
      }
    }
    this.#moves = [];
  }
}

/** The custody records in a folder, by name. */
export function listCustodyFiles(logfilesDirectory: string): string[] {
  return readdirSync(logfilesDirectory)
    .filter((file) => FILE.test(file))
    .sort();
}

function describeFault(place: string, { from, to, fault }: Link): Finding {
  const where = `bytes ${from} to ${to}`;
  const details = {
    edited: `the record in ${where} is not what its sum says`,
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

function readDeposit(fd: number, from: number): Deposit | undefined {
  const facts = readFacts(fd, from) as (Omit<Deposit, 'time'> & { time: string }) | undefined;
  const isWhole = STREAMS.every(
    (stream) => typeof facts?.sha256?.[stream] === 'string' && typeof facts.bytes?.[stream] === 'number',
  );
  return facts && isWhole ? { ...facts, time: new Date(facts.time) } : undefined;
}

function readFacts(fd: number, from: number): Record<string, unknown> | undefined {
  const record = parseCustody(readLine(fd, from));
  return record && JSON.parse(record.text);
}

function readLine(fd: number, from: number): string {
  for (let length = USUAL_RECORD_BYTES; ; length = MAX_RECORD_BYTES) {
    const buffer = Buffer.allocUnsafe(length);
    const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, length, from));
    const end = text.indexOf('\n');
    if (end >= 0 || length === MAX_RECORD_BYTES) return text.slice(0, Math.max(0, end));
  }
}
