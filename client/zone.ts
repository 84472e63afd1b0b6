// The output of `date +%Z` for a given time, read from the machine's time zone file (TZif, RFC
// 8536). Starts no program: on a machine under investigation, only programs that the investigator
// requested may run.
import { readFileSync } from 'node:fs';

/**
 * The abbreviation of the local zone at a time: `PDT`, or an offset like `+0530` when no zone file
 * contains an abbreviation.
 */
export function zoneAbbreviation(date: Date, tz: string | undefined = process.env.TZ): string {
  const offsetSeconds = -date.getTimezoneOffset() * 60;
  const posix = tz === undefined ? undefined : findPosixName(tz, date);
  if (posix !== undefined) return posix;
  return (
    findInZoneFile(zoneFile(tz), date, offsetSeconds) ?? (offsetSeconds === 0 ? 'UTC' : numericOffset(offsetSeconds))
  );
}

function zoneFile(tz: string | undefined): string {
  if (tz === undefined) return '/etc/localtime';
  const name = tz.replace(/^:/, '');
  return name.startsWith('/') ? name : `/usr/share/zoneinfo/${name === '' ? 'UTC' : name}`;
}

/**
 * The name in a POSIX TZ string such as `EST5EDT,M3.2.0,M11.1.0` or `<+03>-3` (RFC 8536, section
 * 3.3). Undefined when JavaScript's local time does not follow the string: JavaScript understands
 * few such strings and takes the others for UTC.
 */
function findPosixName(tz: string, date: Date): string | undefined {
  const name = '([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)';
  const [, standard, sign, hours, minutes = '0', summer] =
    new RegExp(`^:?${name}([+-]?)(\\d{1,2})(?::(\\d\\d))?(?::\\d\\d)?(?:${name}.*)?$`).exec(tz) ?? [];
  const standardMinutes = (sign === '-' ? 1 : -1) * (Number(hours) * 60 + Number(minutes));
  const ahead = -date.getTimezoneOffset() - standardMinutes;
  return (ahead === 0 ? standard : ahead === 60 ? summer : undefined)?.replace(/[<>]/g, '');
}

/**
 * The abbreviation in force at a time according to a zone file. After the last transition, where a
 * rule in the footer applies, it is that of the last type whose offset JavaScript reports.
 */
function findInZoneFile(path: string, date: Date, offsetSeconds: number): string | undefined {
  const file = readOnce(path);
  if (file?.toString('latin1', 0, 4) !== 'TZif') return undefined;
  // Version 2 and later repeat the header and the data with 64-bit times after the 32-bit block
  // (RFC 8536, section 3.2).
  return file.readUInt8(4) === 0
    ? findInBlock(file, 0, 4, date, offsetSeconds)
    : findInBlock(file, blockEnd(file), 8, date, offsetSeconds);
}

/** The files that were read; one run record needs the zone eight times. */
const files = new Map<string, Buffer | undefined>();

/** Reads a file only once; undefined for an unreadable file. */
function readOnce(path: string): Buffer | undefined {
  if (!files.has(path)) files.set(path, readIfPossible(path));
  return files.get(path);
}

function readIfPossible(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

const HEADER_BYTES = 44;

/** The six counts of a header (RFC 8536, section 3.1). */
function readCounts(
  file: Buffer,
  start: number,
): { isUt: number; isStd: number; leap: number; time: number; type: number; char: number } {
  const at = (index: number): number => file.readUInt32BE(start + 20 + 4 * index);
  return { isUt: at(0), isStd: at(1), leap: at(2), time: at(3), type: at(4), char: at(5) };
}

function blockEnd(file: Buffer): number {
  const n = readCounts(file, 0);
  return HEADER_BYTES + n.time * 5 + n.type * 6 + n.char + n.leap * 8 + n.isStd + n.isUt;
}

function findInBlock(
  file: Buffer,
  start: number,
  timeBytes: 4 | 8,
  date: Date,
  offsetSeconds: number,
): string | undefined {
  const n = readCounts(file, start);
  const times = start + HEADER_BYTES;
  const indices = times + n.time * timeBytes;
  const types = indices + n.time;
  const names = types + n.type * 6;
  const now = Math.floor(date.getTime() / 1000);
  const timeAt = (i: number): number =>
    timeBytes === 8 ? Number(file.readBigInt64BE(times + 8 * i)) : file.readInt32BE(times + 4 * i);
  const order: number[] = [];
  for (let i = n.time - 1; i >= 0; i--) if (timeAt(i) <= now) order.push(file.readUInt8(indices + i));
  for (let i = n.type - 1; i >= 0; i--) order.push(i);
  const type = order.find((index) => file.readInt32BE(types + 6 * index) === offsetSeconds);
  if (type === undefined) return undefined;
  const name = names + file.readUInt8(types + 6 * type + 5);
  return file.toString('latin1', name, file.indexOf(0, name));
}

function numericOffset(seconds: number): string {
  const minutes = Math.abs(seconds) / 60;
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  return `${seconds < 0 ? '-' : '+'}${two(minutes / 60)}${minutes % 60 === 0 ? '' : two(minutes % 60)}`;
}
