// The one line a request leaves in nph-webjob.log (docs/protocol.md, section 6): fields with one space between them, a
// `-` for an empty one, then `--` and a message. Nothing a client sends may break a line or forge one.

/** A line of nph-webjob.log. Undefined is what stands as `-`. */
export interface LogLine {
  /** `2004-05-23 16:32:06`, when the request was done. */
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

/** A line to be written: a length as the digits that were announced, of which a number may not hold all. */
export type NewLogLine = Omit<LogLine, 'bytesReceived'> & { bytesReceived: string | number | undefined };

/** The line without its newline. Fields longer than 1024 characters are cut. */
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

/** Parses a line, ours or the original's. Throws SyntaxError. Fields stay encoded as they stand. */
export function parseLogLine(text: string): LogLine {
  if (!LINE.test(text)) throw new SyntaxError('not a line of nph-webjob.log');
  // By hand, as millions of lines are read at a time: where each of the ten fields begins, and the hyphens behind them.
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

/** Behind `2004-05-23 16:32:06 `. */
const JOB_ID = 20;

/**
 * No other month, day or hour than there is: who reads the log makes an instant of it. The original leaves the blank behind the hyphens away
 * when it has no message.
 */
const LINE =
  /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d (?:\S+ ){10}--(?: .*)?$/;

/** A field with the blank behind it. */
function sliceField(text: string, start: number, next: number): string | undefined {
  return isEmpty(text, start, next) ? undefined : text.slice(start, next - 1);
}

function isEmpty(text: string, start: number, next: number): boolean {
  return next === start + 2 && text[start] === '-';
}

/** A number holds so many digits exactly. */
const EXACT_DIGITS = 15;

function parseCount(text: string, start: number, next: number): number {
  let count = 0;
  for (let at = start; at < next - 1; at++) {
    const digit = text.charCodeAt(at) - 48;
    // Up to version 0.1 the largest announced length, twenty nines, was written as 1 and twenty zeros.
    if (digit < 0 || digit > 9 || at - start > 20) throw new SyntaxError('a count in nph-webjob.log is no number');
    count = count * 10 + digit;
  }
  return next - 1 - start > EXACT_DIGITS ? Number(text.slice(start, next - 1)) : count;
}

/** A field as it stands in a log: `-` when empty, cut after 1024 characters, nothing that could end it. */
export function encodeField(value: string | number | undefined): string {
  const text = String(value ?? '').slice(0, MAX_FIELD_LENGTH);
  if (text === '') return '-';
  return text === '-' ? '%2d' : text.replace(/[^\x21-\x24\x26-\x7e]/gu, percentEncode);
}

/** A message as it stands in a log: blanks stay, nothing that could end the line. */
export function encodeMessage(text: string): string {
  return text.slice(0, MAX_FIELD_LENGTH).replace(/[^\x20-\x7e]/gu, percentEncode);
}

/** The UTF-8 bytes of a character, each as `%hh`; a lone surrogate counts as U+FFFD. */
function percentEncode(character: string): string {
  return Array.from(Buffer.from(character), (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
}

/** Text or JSON with nothing but printable ASCII, for lines that a terminal may show: the rest becomes `\uhhhh`, which JSON reads back. */
export function escapeAscii(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
