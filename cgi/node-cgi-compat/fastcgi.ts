// Parses and formats the records of FastCGI 1.0 that a web server and a responder exchange. Pure
// functions, without sockets.

/** The record types (FastCGI specification, section 8). */
export const RECORD_TYPES = {
  beginRequest: 1,
  abortRequest: 2,
  endRequest: 3,
  params: 4,
  stdin: 5,
  stdout: 6,
  stderr: 7,
  data: 8,
  getValues: 9,
  getValuesResult: 10,
  unknownType: 11,
} as const;

/** The protocol status in an END_REQUEST. */
export const PROTOCOL_STATUSES = { complete: 0, cannotMultiplex: 1, overloaded: 2, unknownRole: 3 } as const;

/** The responder role; the others (authorizer, filter) are not supported. */
export const RESPONDER_ROLE = 1;

/** A record without its header and padding. */
export interface FastCgiRecord {
  /** One of RECORD_TYPES, or any other byte. */
  type: number;
  /** The id of the request; 0 for a management record that concerns the whole connection. */
  requestId: number;
  /** May be a slice of the bytes that were pushed; copy it to keep it. */
  content: Buffer;
}

const VERSION = 1;
const HEADER_BYTES = 8;
/** The largest content that needs no padding. */
const MAX_CONTENT_BYTES = 65_528;
const KEEP_CONNECTION = 1;
const NOTHING = Buffer.alloc(0);

/**
 * Splits the bytes of a connection into records, however they arrive. Buffers at most one
 * unfinished record.
 */
export class RecordParser {
  readonly #header = Buffer.allocUnsafe(HEADER_BYTES);
  #headerBytes = 0;
  /** The content of a record whose header is complete; undefined between records. */
  #content: Buffer | undefined;
  #contentBytes = 0;
  #paddingBytes = 0;

  /**
   * Yields the records that these bytes complete. Throws SyntaxError for input that is not FastCGI
   * 1; the parser cannot be used after that.
   */
  *push(bytes: Buffer): Generator<FastCgiRecord> {
    for (let at = 0; at < bytes.length; ) {
      at += this.#takeHeader(bytes, at);
      if (this.#headerBytes < HEADER_BYTES) break;
      at += this.#takeContent(bytes, at);
      if (this.#content && this.#contentBytes === this.#header.readUInt16BE(4)) yield this.#release(this.#content);
      const skipped = Math.min(this.#paddingBytes, bytes.length - at);
      at += skipped;
      this.#paddingBytes -= skipped;
      if (this.#content === undefined && this.#paddingBytes === 0) this.#headerBytes = 0;
    }
  }

  #takeHeader(bytes: Buffer, at: number): number {
    if (this.#headerBytes === HEADER_BYTES) return 0;
    const taken = bytes.copy(this.#header, this.#headerBytes, at);
    this.#headerBytes += taken;
    if (this.#header[0] !== VERSION) throw new SyntaxError('not a record of FastCGI 1');
    if (this.#headerBytes === HEADER_BYTES) {
      this.#content = NOTHING;
      this.#contentBytes = 0;
      this.#paddingBytes = this.#header.readUInt8(6);
    }
    return taken;
  }

  /**
   * Content that is complete in these bytes is not copied; otherwise it gets a buffer of its own.
   */
  #takeContent(bytes: Buffer, at: number): number {
    if (this.#content === undefined) return 0;
    const length = this.#header.readUInt16BE(4);
    const taken = Math.min(length - this.#contentBytes, bytes.length - at);
    if (taken === length) this.#content = bytes.subarray(at, at + length);
    else {
      if (this.#contentBytes === 0) this.#content = taken === 0 ? NOTHING : Buffer.alloc(length);
      bytes.copy(this.#content, this.#contentBytes, at, at + taken);
    }
    this.#contentBytes += taken;
    return taken;
  }

  #release(content: Buffer): FastCgiRecord {
    this.#content = undefined;
    return { type: this.#header.readUInt8(1), requestId: this.#header.readUInt16BE(2), content };
  }
}

/**
 * Formats a record, padded to a multiple of eight bytes. Throws RangeError for content longer than
 * a record allows.
 */
export function formatRecord({ type, requestId, content }: FastCgiRecord): Buffer {
  const paddingBytes = -content.length & 7;
  // From Node's pool, because a separate allocation costs more than everything else about a record.
  const record = Buffer.allocUnsafe(HEADER_BYTES + content.length + paddingBytes);
  record.writeUInt8(VERSION, 0);
  record.writeUInt8(type, 1);
  record.writeUInt16BE(requestId, 2);
  record.writeUInt16BE(content.length, 4);
  record.writeUInt16BE(paddingBytes << 8, 6);
  content.copy(record, HEADER_BYTES);
  record.fill(0, HEADER_BYTES + content.length);
  return record;
}

/**
 * Formats the bytes of a stream as records. The end of the stream, a record without content, is not
 * included.
 */
export function formatStream(type: number, requestId: number, bytes: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += MAX_CONTENT_BYTES)
    records.push(formatRecord({ type, requestId, content: bytes.subarray(at, at + MAX_CONTENT_BYTES) }));
  return records;
}

/** The content of a BEGIN_REQUEST. */
export interface Beginning {
  role: number;
  /** Whether the connection stays open for another request. */
  keepConnection: boolean;
}

/** Parses the content of a BEGIN_REQUEST. Throws SyntaxError. */
export function parseBeginning(content: Buffer): Beginning {
  if (content.length !== 8) throw new SyntaxError('a BEGIN_REQUEST that does not have 8 bytes');
  return { role: content.readUInt16BE(0), keepConnection: (content.readUInt8(2) & KEEP_CONNECTION) !== 0 };
}

/** Formats the content of a BEGIN_REQUEST. */
export function formatBeginning({ role, keepConnection }: Beginning): Buffer {
  const content = Buffer.alloc(8);
  content.writeUInt16BE(role, 0);
  content.writeUInt8(keepConnection ? KEEP_CONNECTION : 0, 2);
  return content;
}

/** Formats a complete END_REQUEST; `protocolStatus` is one of PROTOCOL_STATUSES. */
export function formatEnding(requestId: number, protocolStatus: number): Buffer {
  const content = Buffer.alloc(8);
  content.writeUInt8(protocolStatus, 4);
  return formatRecord({ type: RECORD_TYPES.endRequest, requestId, content });
}

/**
 * Parses name-value pairs (FastCGI specification, section 3.4) as UTF-8, as Node reads its
 * environment. Throws SyntaxError when a length exceeds the end.
 */
export function parsePairs(bytes: Buffer): [name: string, value: string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at < bytes.length; ) {
    const [nameLength, nameAt] = readLength(bytes, at);
    const [valueLength, textAt] = readLength(bytes, nameAt);
    const valueAt = textAt + nameLength;
    at = valueAt + valueLength;
    if (at > bytes.length) throw new SyntaxError('a name or value that is longer than its stream');
    pairs.push([bytes.toString('utf8', textAt, valueAt), bytes.toString('utf8', valueAt, at)]);
  }
  return pairs;
}

/** Formats name-value pairs (FastCGI specification, section 3.4). */
export function formatPairs(pairs: Iterable<readonly [name: string, value: string]>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of pairs) {
    const texts = [Buffer.from(name), Buffer.from(value)];
    parts.push(...texts.map(({ length }) => formatLength(length)), ...texts);
  }
  return Buffer.concat(parts);
}

/**
 * Reads a length of one byte, or of four with the highest bit set; returns it with the offset after
 * it.
 */
function readLength(bytes: Buffer, at: number): [length: number, next: number] {
  const first = bytes[at];
  if (first === undefined) throw new SyntaxError('truncated names and values');
  if (first < 0x80) return [first, at + 1];
  if (at + 4 > bytes.length) throw new SyntaxError('truncated names and values');
  return [bytes.readUInt32BE(at) & 0x7fffffff, at + 4];
}

function formatLength(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE((length | 0x80000000) >>> 0);
  return bytes;
}
