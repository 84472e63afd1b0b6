// %cid and friends: THE table of tokens, in one place for the names of uploads and for the commands we run
// (docs/protocol.md, section 4). A value is encoded before it is put in, so that no client can add a path or a command.
import { NOT_APPLICABLE, timeFields } from 'webjob-protocol';

/** Every token, without its `%`. Comments, not strings, say what they mean: each request parses this file. */
export const TOKENS = [
  'cid', // client id
  'cmd', // name of the command
  'jid', // job id
  'pid', // process id of the server script, in a resident one the number of the request; at least five digits
  'sid', // ServerId
  'ip', // address of the client
  'ipv4', // the same
  'Y', // year
  'y', // year without its century
  'm', // month
  'd', // day of the month
  'H', // hour
  'M', // minute
  'S', // second
  's', // seconds since 1970-01-01 UTC
  'j', // day of the year
  '%', // a percent sign
] as const;

/** Tokens that stand for the path of a file, in the commands that have such a file. */
export const PATH_TOKENS = [
  'file', // the command that was found, empty when there is none (GetHook)
  'sig', // an empty file for the signature of what it prints (GetHook)
  'manifest', // the same for the manifest (GetHook)
  'out', // stdout of an upload (PutHook, PutTrigger)
  'err', // its stderr (the same)
  'env', // its record (the same)
  'rdy', // its ready file, which a PutHook does not see yet (the same)
] as const;

/** What the tokens of one request stand for; times are given as the instant and the zone to write it in. */
export interface TokenFacts {
  clientId?: string | undefined;
  fileName?: string | undefined;
  jobId?: string | undefined;
  pid: number;
  serverId: string;
  remoteAddress?: string | undefined;
  at: Date;
  useGmt: boolean;
}

type Token = (typeof TOKENS)[number];
type PathToken = (typeof PATH_TOKENS)[number];

/**
 * The alternatives, longest first: `%sid` is a ServerId, not seconds followed by "id". Nor is `%sig` that where it is not known, or
 * `%manifest` a month: whoever writes it there has mistaken the control.
 */
function anyOf(tokens: readonly string[]): string {
  const alternatives = tokens
    .toSorted((a, b) => b.length - a.length)
    .map((token) => (token === 's' ? 's(?!ig)' : token === 'm' ? 'm(?!anifest)' : token));
  return `%(?:${alternatives.join('|')})`;
}

/** Matches any of them, unanchored. */
export const NAME_TOKEN = anyOf(TOKENS);
const NAME_PART = `(?:${NAME_TOKEN}|[A-Za-z0-9_.:+@=,-])+`;

/** What a PutNameFormat may be: a relative path of tokens and harmless characters, no segment of dots alone. */
export const NAME_FORMAT_PATTERN = `(?!(?:.*/)?\\.{1,2}(?:/|$))${NAME_PART}(?:/${NAME_PART})*`;

const commandPattern = (...paths: PathToken[]): string => `(?:${anyOf([...TOKENS, ...paths])}|[^%\\x00-\\x1f\\x7f])+`;

/** What the command lines may be: anything printable, with the tokens that the moment knows. */
export const COMMAND_PATTERNS = {
  getHook: commandPattern('file', 'sig', 'manifest'),
  getTrigger: commandPattern(),
  put: commandPattern('out', 'err', 'env', 'rdy'),
} as const;

/** Puts the facts of a request in place of the tokens of a checked name format. */
export function expandTokens(format: string, facts: TokenFacts): string {
  return expand(format, NAME_TOKEN, tokenValues(facts));
}

/**
 * The same for a checked command line, which may name files too: their paths hold nothing a shell takes apart, as the settings
 * have seen to. No value is an option, and none is another folder.
 */
export function expandCommand(
  commandLine: string,
  facts: TokenFacts,
  paths: Partial<Record<PathToken, string>> = {},
): string {
  const values = Object.entries(tokenValues(facts)).map(([token, value]) => [token, encodeWord(value)]);
  const tokens = anyOf([...TOKENS, ...PATH_TOKENS]);
  return expand(commandLine, tokens, { ...Object.fromEntries(values), ...paths });
}

function expand(text: string, pattern: string, values: Record<string, string>): string {
  return text.replace(new RegExp(pattern, 'g'), (token) => values[token.slice(1)] ?? '');
}

/** What every token stands for. */
export function tokenValues(facts: TokenFacts): Record<Token, string> {
  const time = timeFields(facts.at, facts.useGmt);
  const address = encodeValue(facts.remoteAddress);
  return {
    ...time,
    cid: encodeValue(facts.clientId),
    cmd: encodeValue(facts.fileName),
    jid: encodeValue(facts.jobId),
    pid: String(facts.pid).padStart(5, '0'),
    sid: encodeValue(facts.serverId),
    ip: address,
    ipv4: address,
    y: time.Y.slice(-2),
    s: String(Math.floor(facts.at.getTime() / 1000)),
    '%': '%',
  };
}

/** A job id may hold any printable character; what is neither a path's nor a shell's ordinary one becomes `%hh`. */
export function encodeValue(value = NOT_APPLICABLE): string {
  return value.replace(/[^A-Za-z0-9_.:+-]/g, percentEncode);
}

/** A value in a command: one that begins with `-` could be an option, and one of dots alone another folder. */
function encodeWord(value: string): string {
  return value.replace(/^-|^\.+$/, (found) => found.replace(/./g, percentEncode));
}

function percentEncode(character: string): string {
  return `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
}
