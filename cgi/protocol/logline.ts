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

const FIELDS = 10;

/** Parses a line, ours or the original's. Throws SyntaxError. Fields stay encoded as they stand. */
export function parseLogLine(text: string): LogLine {
  const fields: (string | undefined)[] = [];
  // By hand, as millions of lines are read at a time: behind `2004-05-23 16:32:06 ` come ten fields, then `-- ` and the message.
  let at = 20;
  for (let end = at - 1; fields.length < FIELDS && end >= 0; at = end + 1) {
    end = text.indexOf(' ', at);
    if (end <= at) throw new SyntaxError('not a line of nph-webjob.log');
    fields.push(end === at + 1 && text[at] === '-' ? undefined : text.slice(at, end));
  }
  const message = text.slice(at + 3);
  const hyphens = text.slice(at, at + 3);
  // The original leaves the blank away when it has no message.
  if (!LINE.test(text) || !(hyphens === '-- ' || hyphens === '--') || /[\n\r\u2028\u2029]/.test(message))
    throw new SyntaxError('not a line of nph-webjob.log');
  const [jobId, remoteUser, remoteAddress, method, clientId, fileName, received, sent, seconds, status] = fields;
  return {
    time: text.slice(0, 19),
    jobId,
    remoteUser,
    remoteAddress,
    method,
    clientId,
    fileName,
    bytesReceived: received === undefined ? undefined : parseCount(received),
    bytesSent: parseCount(sent),
    seconds: parseCount(seconds),
    status: parseCount(status),
    message,
  };
}

/** No other month, day or hour than there is: who reads the log makes an instant of it. */
const LINE = /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d (?:\S+ ){10}--/;

function parseCount(field: string | undefined): number {
  // Up to version 0.1 the largest announced length, twenty nines, was written as 1 and twenty zeros.
  if (field === undefined || !/^[0-9]{1,21}$/.test(field))
    throw new SyntaxError('a count in nph-webjob.log is no number');
  return Number(field);
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
