// What the name of an upload says, and what name an upload must have: PutNameFormat read backwards and forwards. A name is only ever a hint,
// which the job id in the .rdy file must confirm.
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
  /** What they all begin with. */
  prefix: string;
  fits(name: string): boolean;
  /** There is only one, but for a number behind it. */
  isExact: boolean;
  /** Guesses that are the same have the same. */
  key: string;
}

const VALUE = '[A-Za-z0-9_.:+%-]+';
const TOKEN_PATTERNS: Record<string, string> = {
  '%cid': '(?<cid>[A-Za-z0-9_-]{1,64})',
  '%cmd': '(?<cmd>[A-Za-z0-9_+.:%-]+)',
  '%pid': '[0-9]{1,10}',
  ...{ '%Y': '[0-9]{4}', '%j': '[0-9]{3}', '%s': '[0-9]{1,11}', '%%': '%' },
  ...Object.fromEntries(['%y', '%m', '%d', '%H', '%M', '%S'].map((token) => [token, '[0-9]{2}'])),
};

const TIME_TOKENS = new Set(['%Y', '%y', '%m', '%d', '%H', '%M', '%S', '%s', '%j']);

/**
 * Tells what a name says. Where the id of a client or a command stands beside a job id, only the job id tells where each ends; without it
 * the name must have one that a server of the site can have given (docs/protocol.md, section 5). Undefined for a name of another form.
 *
 * @param jobId as the log writes it
 */
export type ParseName = (name: string, jobId?: string) => NameFacts | undefined;

/** Reads names of the form that PutNameFormat has now. */
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

/** Stands for the job id: no name has it. */
const ID_MARK = '\\0';

function compileFormat(format: string, jobId: string): RegExp {
  const seen = new Set<string>();
  const source = splitFormat(format).map((part) => {
    if (!part.startsWith('%')) return escapePattern(part);
    const pattern = part === '%jid' ? jobId : (TOKEN_PATTERNS[part] ?? VALUE);
    // A group may be named once only.
    return seen.size === seen.add(part).size ? pattern.replace(/\?<\w+>/, '') : pattern;
  });
  return new RegExp(`^${source.join('')}$`);
}

/** The id may stand in the name of the command, too: one of its places is its own. */
function findWithId(pattern: RegExp, name: string, jobId: string): RegExpExecArray | null {
  const id = encodeValue(decodeField(jobId));
  for (let at = name.indexOf(id); at >= 0; at = name.indexOf(id, at + 1)) {
    const found = pattern.exec(`${name.slice(0, at)}\0${name.slice(at + id.length)}`);
    if (found) return found;
  }
  return pattern.exec(name.replaceAll(id, '\0'));
}

/**
 * Tells what names the upload of a PUT may have, the likeliest first. The log says when a request was done and how many whole seconds it
 * took, so that one of three seconds is the one that stands in the name. No names when the folder itself depends on a process id.
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

/** Any server of the site may have received it: the ones it names, and the one that issued the job id. */
function serversOf({ servers, settings }: Site, { jobId = '' }: LogLine): Set<string> {
  const issuer = findJobIdParts(jobId)?.serverId;
  return new Set([settings.serverId, ...servers.map(({ serverId }) => serverId), ...(issuer ? [issuer] : [])]);
}

/** The names of an ordered list that a guess fits. */
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

/** The parts of a name; what is not known of it is `%pid`, and no value is that. */
function guessName(parts: string[]): Guess | undefined {
  const unknown = parts.indexOf('%pid');
  const prefix = parts.slice(0, unknown < 0 ? undefined : unknown).join('');
  const folder = posix.dirname(parts.join(''));
  if (folder.includes('%pid')) return undefined;
  // A PutNameFormat has one process id mostly, and to compile a pattern takes longer than all else.
  const suffix = unknown < 0 ? '' : parts.slice(unknown + 1).join('');
  const hasOne = unknown >= 0 && parts.indexOf('%pid', unknown + 1) < 0;
  const fitsWhole = (name: string): boolean =>
    hasOne
      ? name.startsWith(prefix) &&
        name.endsWith(suffix) &&
        PID.test(name.slice(prefix.length, name.length - suffix.length))
      : compileName(parts).test(name);
  // One that differs from what had its name before has a number behind it.
  const fits = (name: string): boolean => fitsWhole(name) || fitsWhole(splitNumbered(name)?.base ?? '');
  return { folder, prefix, fits, isExact: unknown < 0, key: parts.join('\0') };
}

const PID = /^[0-9]{1,10}$/;

function compileName(parts: string[]): RegExp {
  return new RegExp(`^${parts.map((part) => (part === '%pid' ? '[0-9]{1,10}' : escapePattern(part))).join('')}$`);
}

/** A field of the log as the client sent it. */
function decodeField(field: string): string {
  return field.replace(/%([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function splitFormat(format: string): string[] {
  return format.match(new RegExp(`${NAME_TOKEN}|[^%]+`, 'g')) ?? [];
}

function escapePattern(text: string): string {
  return text.replace(/[^A-Za-z0-9_]/g, '\\$&');
}
