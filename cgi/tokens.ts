// THE table of tokens such as %cid, for the names of uploads and for the commands that the server
// runs (docs/protocol.md, section 4). A value is encoded before it is inserted, so that no client
// can add a path or a command.
import { NOT_APPLICABLE, timeFields } from 'webjob-protocol';

/**
 * Every token, without its `%`. Their meanings are comments rather than strings, because each
 * request parses this file.
 */
export const TOKENS = [
  'cid', // client id
  'cmd', // command
  'jid', // job id
  // process id of the script, or in a persistent worker the number of the request; at least five
  // digits
  'pid',
  'sid', // ServerId
  'ip', // address of the client
  'ipv4', // address of the client
  'Y', // year
  'y', // year without century
  'm', // month
  'd', // day of the month
  'H', // hour
  'M', // minute
  'S', // second
  's', // seconds since 1970-01-01 UTC
  'j', // day of the year
  '%', // a percent sign
] as const;

/** Tokens for the path of a file, in the commands that have such a file. */
export const PATH_TOKENS = [
  'file', // path of the command that was found, empty when there is none (GetHook)
  'sig', // an empty file for the signature of the hook's output (GetHook)
  'manifest', // an empty file for the manifest of the hook's output (GetHook)
  'out', // stdout of an upload (PutHook, PutTrigger)
  'err', // stderr of an upload (PutHook, PutTrigger)
  'env', // run record of an upload (PutHook, PutTrigger)
  'rdy', // .rdy file of an upload, which does not exist yet for a PutHook (PutHook, PutTrigger)
] as const;

/**
 * The values of the tokens for one request; a time is given as a Date and the zone to format it in.
 */
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
 * The alternatives, longest first: `%sid` is the ServerId, not seconds followed by "id". `%sig` is
 * not parsed as `%s` where it is unknown, nor `%manifest` as `%m`: an administrator who writes
 * it there has confused two settings.
 */
function anyOf(tokens: readonly string[]): string {
  const alternatives = tokens
    .toSorted((a, b) => b.length - a.length)
    .map((token) => (token === 's' ? 's(?!ig)' : token === 'm' ? 'm(?!anifest)' : token));
  return `%(?:${alternatives.join('|')})`;
}

/** Matches any token, unanchored. */
export const NAME_TOKEN = anyOf(TOKENS);
const NAME_PART = `(?:${NAME_TOKEN}|[A-Za-z0-9_.:+@=,-])+`;

/**
 * The allowed values of PutNameFormat: a relative path of tokens and harmless characters, without a
 * segment of dots only.
 */
export const NAME_FORMAT_PATTERN = `(?!(?:.*/)?\\.{1,2}(?:/|$))${NAME_PART}(?:/${NAME_PART})*`;

const commandPattern = (...paths: PathToken[]): string => `(?:${anyOf([...TOKENS, ...paths])}|[^%\\x00-\\x1f\\x7f])+`;

/** The allowed command lines: anything printable, with the tokens that are known at that point. */
export const COMMAND_PATTERNS = {
  getHook: commandPattern('file', 'sig', 'manifest'),
  getTrigger: commandPattern(),
  put: commandPattern('out', 'err', 'env', 'rdy'),
} as const;

/** Replaces the tokens of a checked name format. */
export function expandTokens(format: string, facts: TokenFacts): string {
  return expand(format, NAME_TOKEN, tokenValues(facts));
}

/**
 * Replaces the tokens of a checked command line, which may also name files. Their paths contain
 * nothing that a shell would interpret, as the settings have checked. No value can be an option or
 * lead to another directory.
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

/** The values of all tokens. */
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

/**
 * Encodes a value: a job id may contain any printable character; those that are not ordinary in
 * paths and shells become `%hh`.
 */
export function encodeValue(value = NOT_APPLICABLE): string {
  return value.replace(/[^A-Za-z0-9_.:+-]/g, percentEncode);
}

/**
 * Encodes a value for a command: one that begins with `-` could be an option, and one of dots only
 * another directory.
 */
function encodeWord(value: string): string {
  return value.replace(/^-|^\.+$/, (found) => found.replace(/./g, percentEncode));
}

function percentEncode(character: string): string {
  return `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
}
