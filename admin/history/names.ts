// What the name of an upload says, and what name an upload must have: PutNameFormat read backwards and forwards. A name is only ever a hint,
// which the job id in the .rdy file must confirm.
import { posix } from 'node:path';
import type { Group } from 'webjob-locker';
import { isClientId, isFileName, type LogLine } from 'webjob-protocol';
import { NAME_TOKEN, tokenValues } from '../../cgi/tokens.ts';
import type { Site } from '../site.ts';
import { readRecordFields } from './ending.ts';
import { instantOf } from './log.ts';

export interface NameFacts {
  clientId?: string | undefined;
  command?: string | undefined;
}

/** Names that an upload may have, without an extension. */
export interface Guess {
  folder: string;
  /** What they all begin with. */
  prefix: string;
  pattern: RegExp;
}

const VALUE = '[A-Za-z0-9_.:+%-]+';
const TOKEN_PATTERNS: Record<string, string> = {
  '%cid': '(?<cid>[A-Za-z0-9_-]{1,64})',
  '%cmd': '(?<cmd>[A-Za-z0-9_+.:%-]+)',
  '%pid': '[0-9]{1,10}',
  ...{ '%Y': '[0-9]{4}', '%j': '[0-9]{3}', '%s': '[0-9]{1,11}', '%%': '%' },
  ...Object.fromEntries(['%y', '%m', '%d', '%H', '%M', '%S'].map((token) => [token, '[0-9]{2}'])),
};

/** Reads names of the form that PutNameFormat has now: undefined for a name of another form. */
export function compileNames(format: string): (name: string) => NameFacts | undefined {
  const seen = new Set<string>();
  const source = splitFormat(format).map((part) => {
    if (!part.startsWith('%')) return escapePattern(part);
    const pattern = TOKEN_PATTERNS[part] ?? VALUE;
    // A group may be named once only.
    return seen.size === seen.add(part).size ? pattern.replace(/\?<\w+>/, '') : pattern;
  });
  const pattern = new RegExp(`^${source.join('')}$`);
  return (name) => {
    const found = pattern.exec(name);
    return found ? { clientId: found.groups?.cid, command: found.groups?.cmd } : undefined;
  };
}

/** Whose group it is: by its name, or when that is of another form, by what its record claims. */
export function readNameFacts(
  site: Site,
  group: Group,
  parseName = compileNames(site.settings.putNameFormat),
): NameFacts {
  const { clientId, command } = parseName(group.name) ?? {};
  if (clientId !== undefined && command !== undefined) return { clientId, command };
  const claimed = readRecordFields(site, group);
  const [claimedId = '', claimedName = ''] = ['ClientId', 'GetRequest'].map((name) => claimed?.get(name));
  return {
    clientId: clientId ?? (isClientId(claimedId) ? claimedId : undefined),
    command: command ?? (isFileName(claimedName) ? claimedName : undefined),
  };
}

/**
 * The names an upload of this PUT may have. The log says when a request was done and how many whole seconds it took, so that one of three
 * seconds is the one that stands in the name. Empty when the folder itself depends on a process id.
 */
export function guessNames(site: Site, put: LogLine): Guess[] {
  const done = instantOf(put, site).getTime() - put.seconds * 1000;
  const guesses = [0, -1000, 1000].map((offset) => guessName(site, put, new Date(done + offset)));
  const all = new Map(guesses.flatMap((guess) => (guess ? [[`${guess.folder}/${guess.pattern}`, guess]] : [])));
  return [...all.values()];
}

function guessName({ settings }: Site, put: LogLine, at: Date): Guess | undefined {
  const values: Record<string, string> = tokenValues({
    clientId: put.clientId ?? '',
    command: put.fileName ?? '',
    jobId: decodeField(put.jobId ?? 'NA'),
    pid: 0,
    serverId: settings.serverId,
    remoteAddress: put.remoteAddress ?? 'NA',
    at,
    useGmt: settings.useGMT,
  });
  const parts = splitFormat(settings.putNameFormat).map((part) =>
    part === '%pid' || !part.startsWith('%') ? part : (values[part.slice(1)] ?? ''),
  );
  const [prefix = ''] = splitAtPid(parts.join('\0'));
  const folder = posix.dirname(parts.join('').replaceAll('\0', ''));
  if (folder.includes('%pid')) return undefined;
  const source = parts.map((part) => (part === '%pid' ? '[0-9]{1,10}' : escapePattern(part))).join('');
  return { folder, prefix: prefix.replaceAll('\0', ''), pattern: new RegExp(`^${source}$`) };
}

/** What stands before the process id; no value holds a NUL. */
function splitAtPid(text: string): string[] {
  return `\0${text}\0`.split('\0%pid\0');
}

/** A field of the log as the client sent it. */
export function decodeField(field: string): string {
  return field.replace(/%([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function splitFormat(format: string): string[] {
  return format.match(new RegExp(`${NAME_TOKEN}|[^%]+`, 'g')) ?? [];
}

function escapePattern(text: string): string {
  return text.replace(/[^A-Za-z0-9_]/g, '\\$&');
}
