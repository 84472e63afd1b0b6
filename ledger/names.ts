// PutNameFormat in both directions: parses the name of an upload, and predicts the name of an
// upload. A name is only a hint that the job id in the .rdy must confirm.
import { posix } from 'node:path';
import { splitNumbered } from 'webjob-locker';
import { findJobIdParts, type LogLine, NOT_APPLICABLE } from 'webjob-protocol';
import { encodeValue, NAME_TOKEN, type TokenFacts, tokenValues } from '../cgi/tokens.ts';
import { millisecondsOf } from './instant.ts';
import type { Site } from './site.ts';

export interface NameFacts {
  clientId?: string | undefined;
  command?: string | undefined;
}

/** Names that an upload may have, without an extension. */
export interface Guess {
  folder: string;
  /** The common beginning of the names. */
  prefix: string;
  fits(name: string): boolean;
  /** Whether only one name is possible, apart from a number after it. */
  isExact: boolean;
  /** A key that is equal for equal guesses. */
  key: string;
}

const VALUE = '[A-Za-z0-9_.:+%-]+';
/** The possible digits of `%pid`: a persistent worker uses numbers far above any process id. */
const PID_DIGITS = '[0-9]{1,15}';
const TOKEN_PATTERNS: Record<string, string> = {
  '%cid': '(?<cid>[A-Za-z0-9_-]{1,64})',
  '%cmd': '(?<cmd>[A-Za-z0-9_+.:%-]+)',
  '%pid': PID_DIGITS,
  '%Y': '[0-9]{4}',
  '%j': '[0-9]{3}',
  '%s': '[0-9]{1,11}',
  '%%': '%',
  ...Object.fromEntries(['%y', '%m', '%d', '%H', '%M', '%S'].map((token) => [token, '[0-9]{2}'])),
};

const TIME_TOKENS = new Set(['%Y', '%y', '%m', '%d', '%H', '%M', '%S', '%s', '%j']);

/**
 * Parses a name. When a client id or command is next to the job id, only the job id shows where
 * each ends; without it, the name must have a job id that a server of the site can have issued
 * (docs/protocol.md, section 5). Returns undefined for a name of another form.
 *
 * @param jobId in the escaped form of the log
 */
export type ParseName = (name: string, jobId?: string) => NameFacts | undefined;

/** Compiles a parser for names in the current PutNameFormat. */
export function compileNames({ settings, servers }: Site): ParseName {
  const format = settings.putNameFormat;
  const issuers = [settings, ...servers].map(({ serverId }) => escapePattern(serverId));
  const hasNeighbours = format.split('/').some((part) => part.includes('%jid') && /%c(?:id|md)/.test(part));
  const issued = `(?:${NOT_APPLICABLE}|(?:${issuers.join('|')})_[0-9]{10}_[0-9]{5,})`;
  const pattern = compileFormat(format, hasNeighbours ? issued : VALUE);
  const withId = format.includes('%jid') ? compileFormat(format, ID_MARK) : undefined;
  return (given, jobId) => {
    const name = splitNumbered(given)?.base ?? given;
    const found = withId && jobId !== undefined ? findWithId(withId, name, jobId) : pattern.exec(name);
    return found ? { clientId: found.groups?.cid, command: found.groups?.cmd } : undefined;
  };
}

/** A placeholder for the job id that no name contains. */
const ID_MARK = '\\0';

function compileFormat(format: string, jobId: string): RegExp {
  const seen = new Set<string>();
  const source = splitFormat(format).map((part) => {
    if (!part.startsWith('%')) return escapePattern(part);
    const pattern = part === '%jid' ? jobId : (TOKEN_PATTERNS[part] ?? VALUE);
    // A regular expression may use a group name only once.
    return seen.size === seen.add(part).size ? pattern.replace(/\?<\w+>/, '') : pattern;
  });
  return new RegExp(`^${source.join('')}$`);
}

/**
 * Parses a name with a known job id. The command may contain the same text, so every occurrence is
 * tried.
 */
function findWithId(pattern: RegExp, name: string, jobId: string): RegExpExecArray | null {
  const id = encodeValue(decodeField(jobId));
  for (let at = name.indexOf(id); at >= 0; at = name.indexOf(id, at + 1)) {
    const found = pattern.exec(`${name.slice(0, at)}\0${name.slice(at + id.length)}`);
    if (found) return found;
  }
  return pattern.exec(name.replaceAll(id, '\0'));
}

/**
 * Returns a function that yields the names that the upload of a PUT may have, likeliest first. The
 * log says when a request finished and how many whole seconds it took, so the time in the name is
 * one of three seconds. It yields none when the directory depends on a process id.
 */
export function makeGuesser(site: Site): (put: LogLine) => Generator<Guess> {
  const { settings } = site;
  const parts = splitFormat(settings.putNameFormat);
  const hasTime = parts.some((part) => TIME_TOKENS.has(part));
  const hasServer = parts.includes('%sid');
  return function* (put) {
    const facts: Omit<TokenFacts, 'at' | 'serverId'> = {
      clientId: put.clientId ?? '',
      fileName: put.fileName ?? '',
      jobId: decodeField(put.jobId ?? 'NA'),
      pid: 0,
      remoteAddress: put.remoteAddress ?? 'NA',
      useGmt: settings.useGMT,
    };
    const received = millisecondsOf(put, site) - put.seconds * 1000;
    for (const serverId of hasServer ? serversOf(site, put) : [settings.serverId])
      for (const offset of hasTime ? [0, -1000, 1000] : [0]) {
        const values: Record<string, string> = tokenValues({ ...facts, serverId, at: new Date(received + offset) });
        const guess = guessName(
          parts.map((part) => (part.startsWith('%') ? (part === '%pid' ? part : (values[part.slice(1)] ?? '')) : part)),
        );
        if (guess) yield guess;
      }
  };
}

/**
 * The servers that may have received a PUT: those in the settings, and the one that issued the job
 * id.
 */
function serversOf({ servers, settings }: Site, { jobId = '' }: LogLine): Set<string> {
  const issuer = findJobIdParts(jobId)?.serverId;
  return new Set([settings.serverId, ...servers.map(({ serverId }) => serverId), ...(issuer ? [issuer] : [])]);
}

/** Returns the names in a sorted list that match a guess. */
export function selectNames(names: readonly string[], { prefix, fits }: Guess): string[] {
  let low = 0;
  for (let high = names.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((names[middle] ?? '') < prefix) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (names[end]?.startsWith(prefix)) end++;
  return end === low ? [] : names.slice(low, end).filter(fits);
}

/**
 * Builds a guess from the parts of a name. The only unknown part is `%pid`, which no value equals.
 */
function guessName(parts: string[]): Guess | undefined {
  const unknown = parts.indexOf('%pid');
  const prefix = parts.slice(0, unknown < 0 ? undefined : unknown).join('');
  const folder = posix.dirname(parts.join(''));
  if (folder.includes('%pid')) return undefined;
  // A PutNameFormat usually has at most one `%pid`, for which no pattern is compiled: that would
  // take longer than everything else.
  const suffix = unknown < 0 ? '' : parts.slice(unknown + 1).join('');
  const hasOne = unknown >= 0 && parts.indexOf('%pid', unknown + 1) < 0;
  const fitsWhole = (name: string): boolean =>
    hasOne
      ? name.startsWith(prefix) &&
        name.endsWith(suffix) &&
        PID.test(name.slice(prefix.length, name.length - suffix.length))
      : compileName(parts).test(name);
  // An upload under a name that other bytes have taken gets a number after its name.
  const fits = (name: string): boolean => fitsWhole(name) || fitsWhole(splitNumbered(name)?.base ?? '');
  return { folder, prefix, fits, isExact: unknown < 0, key: parts.join('\0') };
}

const PID = new RegExp(`^${PID_DIGITS}$`);

function compileName(parts: string[]): RegExp {
  return new RegExp(`^${parts.map((part) => (part === '%pid' ? PID_DIGITS : escapePattern(part))).join('')}$`);
}

/** Decodes a field of the log to the text that the client sent. */
function decodeField(field: string): string {
  return field.replace(/%([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function splitFormat(format: string): string[] {
  return format.match(new RegExp(`${NAME_TOKEN}|[^%]+`, 'g')) ?? [];
}

function escapePattern(text: string): string {
  return text.replace(/[^A-Za-z0-9_]/g, '\\$&');
}
