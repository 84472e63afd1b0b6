// %cid and friends: THE table of tokens, in one place for the names of uploads and for the commands we run
// (docs/protocol.md, section 4). A value is encoded before it is put in, so that no client can add a path or a command.
import { timeFields } from 'webjob-protocol';

/** Every token, without its `%`, and what it stands for. */
export const TOKENS = {
  cid: 'client id',
  cmd: 'name of the command',
  jid: 'job id',
  pid: 'process id of the server script, at least five digits',
  sid: 'ServerId',
  ip: 'address of the client',
  ipv4: 'address of the client',
  Y: 'year',
  y: 'year without its century',
  m: 'month',
  d: 'day of the month',
  H: 'hour',
  M: 'minute',
  S: 'second',
  s: 'seconds since 1970-01-01 UTC',
  j: 'day of the year',
  '%': 'a percent sign',
} as const;

type Token = keyof typeof TOKENS;

/** What the tokens of one request stand for; times are given as the instant and the zone to write it in. */
export interface TokenFacts {
  clientId: string;
  command: string;
  jobId: string;
  pid: number;
  serverId: string;
  remoteAddress: string;
  at: Date;
  useGmt: boolean;
}

// Longest first: `%sid` is a ServerId, not seconds followed by "id".
const tokenPattern = `%(?:${Object.keys(TOKENS)
  .sort((a, b) => b.length - a.length)
  .join('|')})`;

/** What a PutNameFormat may be: a relative path of tokens and harmless characters, no segment of dots alone. */
export const NAME_FORMAT_PATTERN = `(?!(?:.*/)?\\.{1,2}(?:/|$))(?:${tokenPattern}|[A-Za-z0-9_.:+@=,-])+(?:/(?:${tokenPattern}|[A-Za-z0-9_.:+@=,-])+)*`;

/** Puts the facts of a request in place of the tokens of a checked format. */
export function expandTokens(format: string, facts: TokenFacts): string {
  const values = tokenValues(facts);
  return format.replace(new RegExp(tokenPattern, 'g'), (token) => values[token.slice(1) as Token]);
}

function tokenValues(facts: TokenFacts): Record<Token, string> {
  const time = timeFields(facts.at, facts.useGmt);
  return {
    cid: encodeValue(facts.clientId),
    cmd: encodeValue(facts.command),
    jid: encodeValue(facts.jobId),
    pid: String(facts.pid).padStart(5, '0'),
    sid: encodeValue(facts.serverId),
    ip: encodeValue(facts.remoteAddress),
    ipv4: encodeValue(facts.remoteAddress),
    Y: time.year,
    y: time.year.slice(-2),
    m: time.month,
    d: time.day,
    H: time.hour,
    M: time.minute,
    S: time.second,
    s: String(Math.floor(facts.at.getTime() / 1000)),
    j: time.dayOfYear,
    '%': '%',
  };
}

/** A job id may hold any printable character; what is neither a path's nor a shell's ordinary one becomes `%hh`. */
function encodeValue(value: string): string {
  return value.replace(/[^A-Za-z0-9_.:+-]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
