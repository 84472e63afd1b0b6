// The line that each request leaves in nph-webjob.log (docs/protocol.md, section 6): fields
// separated by single spaces, `-` for an empty one, then `--` and a message. Nothing a client sends
// can break or forge a line.

/** A line of nph-webjob.log. Undefined fields are written as `-`. */
export interface LogLine {
  /** `2004-05-23 16:32:06`, when the request was finished. */
  time: string;
  jobId: string | undefined;
  remoteUser: string | undefined;
  remoteAddress: string | undefined;
  method: string | undefined;
  clientId: string | undefined;
  fileName: string | undefined;
  /** Content-Length as the client announced it. */
  bytesReceived: number | undefined;
  bytesSent: number;
  seconds: number;
  status: number;
  message: string;
}

const MAX_FIELD_LENGTH = 1024;

/**
 * A line to be written. The announced length is kept as digits, because a number may not represent
 * all of them.
 */
export type NewLogLine = Omit<LogLine, 'bytesReceived'> & { bytesReceived: string | number | undefined };

/** Formats a line without its newline. Fields longer than 1024 characters are cut. */
export function formatLogLine(line: NewLogLine): string {
  const fields = [
    line.jobId,
    line.remoteUser,
    line.remoteAddress,
    line.method,
    line.clientId,
    line.fileName,
    line.bytesReceived,
    line.bytesSent,
    line.seconds,
    line.status,
  ];
  return `${line.time} ${fields.map(encodeField).join(' ')} -- ${encodeMessage(line.message)}`;
}

/** Parses a line of this server or the original. Fields stay encoded. Throws SyntaxError. */
export function parseLogLine(text: string): LogLine {
  if (!LINE.test(text)) throw new SyntaxError('not a line of nph-webjob.log');
  // Parsed by hand, because millions of lines are read at a time: finds where each of the ten
  // fields begins, and the hyphens after them.
  const user = text.indexOf(' ', JOB_ID) + 1;
  const address = text.indexOf(' ', user) + 1;
  const method = text.indexOf(' ', address) + 1;
  const client = text.indexOf(' ', method) + 1;
  const file = text.indexOf(' ', client) + 1;
  const received = text.indexOf(' ', file) + 1;
  const sent = text.indexOf(' ', received) + 1;
  const seconds = text.indexOf(' ', sent) + 1;
  const status = text.indexOf(' ', seconds) + 1;
  const hyphens = text.indexOf(' ', status) + 1;
  return {
    time: text.slice(0, 19),
    jobId: sliceField(text, JOB_ID, user),
    remoteUser: sliceField(text, user, address),
    remoteAddress: sliceField(text, address, method),
    method: text.startsWith('GET ', method)
      ? 'GET'
      : text.startsWith('PUT ', method)
        ? 'PUT'
        : sliceField(text, method, client),
    clientId: sliceField(text, client, file),
    fileName: sliceField(text, file, received),
    bytesReceived: isEmpty(text, received, sent) ? undefined : parseCount(text, received, sent),
    bytesSent: parseCount(text, sent, seconds),
    seconds: parseCount(text, seconds, status),
    status: parseCount(text, status, hyphens),
    message: text.slice(hyphens + 3),
  };
}

/** The offset after `2004-05-23 16:32:06 `. */
const JOB_ID = 20;

/**
 * Matches only months, days and hours that exist, because readers convert the time. The original
 * omits the space after the hyphens when there is no message.
 */
const LINE =
  /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d (?:\S+ ){10}--(?: .*)?$/;

/** A field; undefined for `-`. The next field begins at `next`. */
function sliceField(text: string, start: number, next: number): string | undefined {
  return isEmpty(text, start, next) ? undefined : text.slice(start, next - 1);
}

function isEmpty(text: string, start: number, next: number): boolean {
  return next === start + 2 && text[start] === '-';
}

/** A number represents this many digits exactly. */
const EXACT_DIGITS = 15;

function parseCount(text: string, start: number, next: number): number {
  let count = 0;
  for (let at = start; at < next - 1; at++) {
    const digit = text.charCodeAt(at) - 48;
    // Up to version 0.1 the largest announced length, twenty nines, was written as 1 and twenty
    // zeros.
    if (digit < 0 || digit > 9 || at - start > 20) throw new SyntaxError('a count in nph-webjob.log is not a number');
    count = count * 10 + digit;
  }
  return next - 1 - start > EXACT_DIGITS ? Number(text.slice(start, next - 1)) : count;
}

/**
 * Encodes a field for a log: `-` when empty, cut after 1024 characters, with every character that
 * could end the field escaped.
 */
export function encodeField(value: string | number | undefined): string {
  const text = String(value ?? '').slice(0, MAX_FIELD_LENGTH);
  if (text === '') return '-';
  return text === '-' ? '%2d' : text.replace(/[^\x21-\x24\x26-\x7e]/gu, percentEncode);
}

/** Encodes a message for a log: spaces stay, characters that could end the line are escaped. */
export function encodeMessage(text: string): string {
  return text.slice(0, MAX_FIELD_LENGTH).replace(/[^\x20-\x7e]/gu, percentEncode);
}

/** The UTF-8 bytes of a character, each as `%hh`; a lone surrogate becomes U+FFFD. */
function percentEncode(character: string): string {
  return Array.from(Buffer.from(character), (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
}

/**
 * Escapes text or JSON to printable ASCII, for lines that a terminal may show. Other characters
 * become `\uhhhh`, which a JSON parser reads back.
 */
export function escapeAscii(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
