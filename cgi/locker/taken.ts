// The index of the claims of an assignment (claims.ts): one line for each, of all servers.

/** A line in a file of `taken`. */
export interface TakenClaim {
  due: number;
  clientId: string;
  /** The position in the batch, counted from 1. */
  position: number;
  jobId: string;
}

/** A line, up to its end. */
const TAKEN = /\d{1,12} [A-Za-z0-9_-]{1,64} \d{1,4} [\x21-\x7e]{1,255}(?=\n|$)/y;
/** The shortest line has this many bytes. */
const LEAST_BYTES = 8;

/**
 * The claims in the files of `taken` of an assignment, by client; malformed lines are skipped. A
 * large fleet has a line for each client, and most callers need only its due time. So this class
 * holds the text and a hash table of offsets, which takes less time to make than a Map of objects.
 */
export class TakenClaims {
  /** The number of claims. */
  readonly count: number = 0;
  /** The number of clients with a claim. */
  size = 0;
  readonly #text: string;
  /** The offset of the newest line of each client, plus 1; 0 is free. */
  readonly #slots: Int32Array;
  /** The hash of the client id in each slot. */
  readonly #hashes: Int32Array;
  readonly #added = new Map<string, TakenClaim>();

  constructor(texts: readonly string[]) {
    const text = texts.length === 1 ? (texts[0] ?? '') : texts.join('\n');
    this.#text = text;
    // With a slot for each line that fits, the table is never full.
    this.#slots = new Int32Array(2 ** Math.ceil(Math.log2(text.length / LEAST_BYTES + 2)));
    this.#hashes = new Int32Array(this.#slots.length);
    for (let at = 0; at < text.length; ) {
      TAKEN.lastIndex = at;
      const isLine = TAKEN.test(text);
      if (isLine) {
        this.count += 1;
        this.#place(at);
      }
      const end = text.indexOf('\n', isLine ? TAKEN.lastIndex : at);
      if (end < 0) break;
      at = end + 1;
    }
  }

  /** Adds the newest claim of a client that has no line. */
  add(claim: TakenClaim): void {
    if (!this.find(claim.clientId)) this.size += 1;
    this.#added.set(claim.clientId, claim);
  }

  /**
   * The claim of a client with the latest due time; of several with the same due time, the first.
   */
  find(clientId: string): TakenClaim | undefined {
    const added = this.#added.size > 0 ? this.#added.get(clientId) : undefined;
    if (added) return added;
    const offset = this.#slots[this.#slotOf(clientId, hashOf(clientId, 0, clientId.length))] ?? 0;
    return offset === 0 ? undefined : new TakenLine(this.#text, offset - 1);
  }

  /** The newest claim of each client. */
  *newest(): Generator<TakenClaim> {
    yield* this.#added.values();
    for (const offset of this.#slots) {
      if (offset === 0) continue;
      const claim = new TakenLine(this.#text, offset - 1);
      if (!this.#added.has(claim.clientId)) yield claim;
    }
  }

  /** Every claim with a line. */
  *all(): Generator<TakenClaim> {
    const text = this.#text;
    for (let at = 0; at < text.length; ) {
      TAKEN.lastIndex = at;
      if (TAKEN.test(text)) yield new TakenLine(text, at);
      const end = text.indexOf('\n', at);
      if (end < 0) break;
      at = end + 1;
    }
  }

  #place(at: number): void {
    const text = this.#text;
    const from = text.indexOf(' ', at) + 1;
    const to = text.indexOf(' ', from);
    const hash = hashOf(text, from, to);
    let slot = hash & (this.#slots.length - 1);
    // Comparing hashes tells most lines apart.
    if (this.#slots[slot] !== 0) slot = this.#slotOf(text.slice(from, to), hash);
    const known = this.#slots[slot] ?? 0;
    if (known === 0) this.size += 1;
    else if (dueAt(text, at) <= dueAt(text, known - 1)) return;
    this.#slots[slot] = at + 1;
    this.#hashes[slot] = hash;
  }

  /** The slot of a client, or the free slot where it belongs. */
  #slotOf(clientId: string, hash: number): number {
    const [text, slots, hashes] = [this.#text, this.#slots, this.#hashes];
    const mask = slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const offset = slots[slot] ?? 0;
      if (offset === 0) return slot;
      if (hashes[slot] !== hash) continue;
      const from = text.indexOf(' ', offset - 1) + 1;
      if (text.startsWith(clientId, from) && text[from + clientId.length] === ' ') return slot;
    }
  }
}

function hashOf(text: string, from: number, to: number): number {
  let hash = 0;
  for (let at = from; at < to; at += 1) hash = (Math.imul(hash, 31) + text.charCodeAt(at)) | 0;
  // The table uses only the low bits.
  return hash ^ (hash >>> 15);
}

function dueAt(text: string, at: number): number {
  return Number(text.slice(at, text.indexOf(' ', at)));
}

/** A line whose parts are parsed on demand. */
class TakenLine implements TakenClaim {
  readonly #text: string;
  readonly #at: number;
  #due = -1;
  constructor(text: string, at: number) {
    this.#text = text;
    this.#at = at;
  }
  get due(): number {
    if (this.#due < 0) this.#due = dueAt(this.#text, this.#at);
    return this.#due;
  }
  get clientId(): string {
    return this.#field(1);
  }
  get position(): number {
    return Number(this.#field(2));
  }
  get jobId(): string {
    return this.#field(3);
  }
  #field(index: number): string {
    let from = this.#at;
    for (let count = 0; count < index; count += 1) from = this.#text.indexOf(' ', from) + 1;
    const end = this.#text.indexOf(index === 3 ? '\n' : ' ', from);
    return this.#text.slice(from, end < 0 ? undefined : end);
  }
}
