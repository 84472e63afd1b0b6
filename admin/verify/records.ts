// Every custody record of a site, walked and indexed: what each group was when it was deposited, and which were taken away on purpose.
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

/** A pack that was made, and neither removed nor unpacked since. */
export interface RecordedPack {
  name: string;
  /** When it was put on record. */
  time: Date;
  archiveBytes: number;
  archiveSha256: string;
  manifestSha256: string;
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

const FILE = /^nph-webjob-custody\.[A-Za-z0-9_.-]{1,64}\.jsonl$/;
const PACK = /^\d{4}-\d\d-\d\d(?:\.\d+)?$/;
/** What webjobctl writes tells nothing of when a server began. */
const OPERATOR_FILE = 'nph-webjob-custody.webjobctl.jsonl';
/** Events after which a group is no longer in the locker. */
const DEPARTURES = ['prune', 'pack'];
const USUAL_RECORD_BYTES = 2048;

export class CustodyRecords {
  readonly #books: Book[];
  readonly #faults: Finding[] = [];
  #moves: { name: string; places: Book['places']; from: number; time: number; isReturn: boolean }[] = [];
  /** By the digest of the archive, as a name comes again after an unpack; `records` is where those begin that name its groups. */
  readonly #packs = new Map<string, RecordedPack & { records: number[] }>();
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

  /** The packs that ought to be there. */
  packs(): RecordedPack[] {
    return [...this.#packs.values()];
  }

  close(): void {
    for (const { fd } of this.#books) closeSync(fd);
  }

  #take(book: Book, link: Link): void {
    const { file, places } = book;
    if (link.fault) this.#faults.push(describeFault(file, link));
    const { facts } = link;
    if (!facts || link.fault === 'edited') return;
    const time = Date.parse(String(facts.time));
    if (facts.event === 'deposit' && isName(facts.name)) places.set(facts.name, link.from + 1);
    // A lock stands, with the time that the .rdy will have, before the record is written.
    const begun = Date.parse(String(facts.receivedAt ?? facts.time));
    if (file !== OPERATOR_FILE && begun < this.#since) this.#since = begun;
    if (file === OPERATOR_FILE) this.#takePack(book, link, facts);
    if (!DEPARTURES.includes(String(facts.event))) return;
    for (const name of namesIn(facts)) this.#moves.push({ name, places, from: link.from, time, isReturn: false });
  }

  #takePack({ fd, places }: Book, link: Link, facts: Record<string, unknown>): void {
    const { event, pack: name, archiveBytes, archiveSha256, manifestSha256 } = facts;
    const time = new Date(String(facts.time));
    if (typeof name !== 'string' || !PACK.test(name) || typeof archiveSha256 !== 'string') return;
    const known = this.#packs.get(archiveSha256);
    if (event === 'pack' && typeof manifestSha256 === 'string') {
      const records = known?.records ?? [];
      records.push(link.from);
      const digests = { archiveSha256, manifestSha256 };
      this.#packs.set(archiveSha256, { name, time, archiveBytes: Number(archiveBytes), ...digests, records });
    } else if (known && (event === 'unpack' || event === 'prune-pack')) {
      this.#packs.delete(archiveSha256);
      if (event === 'prune-pack') return;
      for (const from of known.records)
        for (const returned of namesIn(readFacts(fd, from) ?? {}))
          this.#moves.push({ name: returned, places, from: link.from, time: time.getTime(), isReturn: true });
    }
  }

  /** Groups that left or came back, once every book is read: another server may have deposited what this one pruned. */
  #move(): void {
    for (const { name, places, from, time, isReturn } of this.#moves) {
      for (const book of this.#books) {
        const place = book.places.get(name) ?? 0;
        if (isReturn && place < 0) book.places.set(name, -place);
        if (isReturn || place <= 0) continue;
        const isBefore =
          book.places === places ? place - 1 < from : Number(readDeposit(book.fd, place - 1)?.time) <= time;
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

function namesIn({ names }: Record<string, unknown>): string[] {
  return Array.isArray(names) ? names.filter(isName) : [];
}

/** Of a record that was walked, and so is JSON. */
function readFacts(fd: number, from: number): Record<string, unknown> | undefined {
  const record = parseCustody(readLine(fd, from));
  return record && JSON.parse(record.text);
}

function readDeposit(fd: number, from: number): Deposit | undefined {
  const facts = readFacts(fd, from) as (Omit<Deposit, 'time'> & { time: string }) | undefined;
  const isWhole = STREAMS.every(
    (stream) => typeof facts?.sha256?.[stream] === 'string' && typeof facts.bytes?.[stream] === 'number',
  );
  return facts && isWhole ? { ...facts, time: new Date(facts.time) } : undefined;
}

function readLine(fd: number, from: number): string {
  for (let length = USUAL_RECORD_BYTES; ; length = MAX_RECORD_BYTES) {
    const buffer = Buffer.allocUnsafe(length);
    const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, length, from));
    const end = text.indexOf('\n');
    if (end >= 0 || length === MAX_RECORD_BYTES) return text.slice(0, Math.max(0, end));
  }
}
