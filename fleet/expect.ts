// The file `expect` of a site: the expectations for its clients, and who is alerted when one is
// missed (docs/guide/alerts.md). The file is written by hand; each line is a statement that begins
// with its kind.
import { isFileName } from 'webjob-protocol';
import { dateOf, secondsIn } from '../cli/spans.ts';
import { isTarget } from './groups.ts';

/** An expectation for a command on some clients. */
export interface Expectation {
  /** Counted from 1. */
  line: number;
  /** A client id, a glob or a group. */
  who: string;
  /** `*` for any job. */
  command: string;
  /** Seconds within which a result must be followed by the next one, including the grace period. */
  within: number | undefined;
  /** Exit codes that count as success. */
  exit: readonly number[] | undefined;
  /** The reference that the output must equal. */
  same: { as: 'previous' } | { as: 'job'; jobId: string } | { as: 'date'; date: Date } | undefined;
  stream: 'out' | 'err';
  /** Lines that are ignored in comparisons. */
  ignore: readonly RegExp[];
  /** The longest duration of a run in seconds. */
  longest: number | undefined;
}

/** A channel over which someone is alerted. */
export type Channel = { line: number } & (
  | {
      kind: 'mail';
      to: readonly string[];
      from: string;
      sendmail: string;
      /** `smtp://host:port` or `smtps://host:port`; undefined for sendmail. */
      smtp: string | undefined;
      user: string | undefined;
      passwordFile: string | undefined;
    }
  | { kind: 'webhook'; url: string; secretFile: string | undefined }
  | { kind: 'command'; words: readonly string[] }
);

/** The things monitored besides the clients; undefined fields are not monitored. */
export interface Warnings {
  /** Seconds before the end of a certificate or revocation list. */
  certificates: number | undefined;
  /**
   * Free space on the file systems of the locker and the logs: a fraction from 0 to 1, or bytes.
   */
  disk: Limit | undefined;
  /** Free inodes: a fraction from 0 to 1, or a number. */
  inodes: Limit | undefined;
  /** Seconds after which a custody record must have a new checkpoint. */
  checkpoint: number | undefined;
  /** Seconds between two verifications, and how far back each looks (undefined for everything). */
  verify: { every: number; since: number | undefined } | undefined;
  /** Whether a stopped rollout is reported. */
  rollout: boolean;
}

export type Limit = { part: number } | { count: number };

/** The contents of the whole file. */
export interface Rules {
  expectations: Expectation[];
  channels: Channel[];
  warnings: Warnings;
  /** A URL, or `@FILE`, that is requested when all is well. */
  ping: string | undefined;
  /** Seconds after which a persistent problem is reported again. */
  remind: number | undefined;
  /** Minutes of the day between which no message is sent; the second may be smaller. */
  quiet: readonly [from: number, to: number] | undefined;
  /** Seconds until a failed message is sent again; every further pause is longer. */
  retry: number;
  /** The time limit of a channel in seconds. */
  timeout: number;
}

/** An error in the file with its line, counted from 1. */
export class ExpectError extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.line = line;
  }
}

/** Parses the file. Throws ExpectError for the first line that is wrong. */
export function parseExpect(text: string): Rules {
  const rules: Rules = {
    expectations: [],
    channels: [],
    ping: undefined,
    remind: undefined,
    quiet: undefined,
    retry: 60,
    timeout: 10,
    warnings: {
      certificates: undefined,
      disk: undefined,
      inodes: undefined,
      checkpoint: undefined,
      verify: undefined,
      rollout: false,
    },
  };
  for (const [index, line] of text.split('\n').entries()) {
    try {
      const [verb, ...words] = splitWords(line);
      if (verb !== undefined) readStatement(rules, verb, words, index + 1);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new ExpectError(index + 1, error.message);
    }
  }
  return rules;
}

/**
 * Words separated by spaces; in double quotes a word may contain spaces and `#`, and `\"` is a
 * quote.
 */
function splitWords(line: string): string[] {
  const words: string[] = [];
  let [word, isQuoted, hasWord] = ['', false, false];
  for (let at = 0; at < line.length; at++) {
    const character = line[at] ?? '';
    if (isQuoted && character === '\\' && line[at + 1] === '"') word += line[++at];
    else if (character === '"') [isQuoted, hasWord] = [!isQuoted, true];
    else if (!isQuoted && /\s/.test(character)) {
      if (hasWord) words.push(word);
      [word, hasWord] = ['', false];
    } else if (!isQuoted && character === '#' && !hasWord) break;
    else [word, hasWord] = [word + character, true];
  }
  if (isQuoted) throw new SyntaxError('a quote is not closed');
  if (hasWord) words.push(word);
  return words;
}

const VERBS = 'expect, tell, warn, ping, remind, quiet, retry, timeout';

function readStatement(rules: Rules, verb: string, words: string[], line: number): void {
  const [first = '', ...rest] = words;
  const single = (): string => {
    if (first === '' || rest.length > 0) throw new SyntaxError(`${verb} takes one word`);
    return first;
  };
  switch (verb) {
    case 'expect':
      rules.expectations.push(readExpectation(words, line));
      return;
    case 'tell':
      addChannel(rules.channels, readChannel(first, rest, line));
      return;
    case 'warn':
      readWarning(rules.warnings, first, rest);
      return;
    case 'ping':
      rules.ping = readUrl(single());
      return;
    case 'quiet':
      rules.quiet = readQuiet(single());
      return;
    case 'remind':
    case 'retry':
    case 'timeout':
      rules[verb] = readSpan(verb, single());
      return;
    default:
      throw new SyntaxError(`${verb} is not one of ${VERBS}`);
  }
}

/**
 * Parses `name=value` words. Each may occur once, except those in `repeated`; a bare word has the
 * value ''.
 */
function readPairs(words: readonly string[], known: readonly string[], repeated: readonly string[] = []) {
  const pairs = new Map<string, string[]>();
  for (const word of words) {
    const [, name = '', , value = ''] = /^([a-z-]+)(=(.*))?$/s.exec(word) ?? [];
    if (!known.includes(name)) throw new SyntaxError(`${word} is not one of ${known.join(', ')}`);
    const before = pairs.get(name);
    if (before && !repeated.includes(name)) throw new SyntaxError(`${name} is given twice`);
    pairs.set(name, [...(before ?? []), value]);
  }
  return { all: (name: string) => pairs.get(name) ?? [], one: (name: string) => pairs.get(name)?.[0] };
}

const CONDITIONS = ['every', 'grace', 'exit', 'unchanged', 'unchanged-since', 'golden', 'stream', 'ignore', 'longest'];

function readExpectation([who = '', command = '', ...words]: string[], line: number): Expectation {
  if (!isTarget(who)) throw new SyntaxError(`${who || 'nothing'} is not a client id, a glob or a group`);
  if (command !== '*' && !isFileName(command)) throw new SyntaxError(`${command || 'nothing'} is not a command`);
  const { one, all } = readPairs(words, CONDITIONS, ['ignore']);
  const span = (name: string): number | undefined => {
    const text = one(name);
    return text === undefined ? undefined : readSpan(name, text);
  };
  const [every, grace] = [span('every'), span('grace')];
  if (grace !== undefined && every === undefined) throw new SyntaxError('grace requires every');
  const [codes, stream = 'out'] = [one('exit'), one('stream')];
  if (codes !== undefined && !/^\d{1,3}(,\d{1,3})*$/.test(codes))
    throw new SyntaxError('exit codes are numbers, separated by commas');
  if (stream !== 'out' && stream !== 'err') throw new SyntaxError('stream is out or err');
  const expectation: Expectation = {
    line,
    who,
    command,
    stream,
    same: readSame(one),
    within: every === undefined ? undefined : every + (grace ?? 0),
    exit: codes?.split(',').map(Number),
    ignore: all('ignore').map(readPattern),
    longest: span('longest'),
  };
  const { within, exit, same, longest } = expectation;
  if (command === '*' && (within === undefined || words.some((word) => !/^(every|grace)=/.test(word))))
    throw new SyntaxError('for * only every and grace can be given');
  if ([within, exit, same, longest].every((one) => one === undefined))
    throw new SyntaxError('it expects nothing: give every, exit, unchanged, unchanged-since, golden or longest');
  return expectation;
}

function readSame(one: (name: string) => string | undefined): Expectation['same'] {
  const [bare, since, golden] = [one('unchanged'), one('unchanged-since'), one('golden')];
  if ([bare, since, golden].filter((value) => value !== undefined).length > 1)
    throw new SyntaxError('give one of unchanged, unchanged-since and golden');
  if (bare !== undefined && bare !== '') throw new SyntaxError('unchanged has no value: write unchanged-since=DATE');
  if (bare !== undefined) return { as: 'previous' };
  if (since !== undefined) {
    const date = dateOf(since);
    if (!date) throw new SyntaxError('unchanged-since is a date, as in 2026-11-01 or 2026-11-01T12:00Z');
    return { as: 'date', date };
  }
  if (golden === undefined) return undefined;
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(golden)) throw new SyntaxError('golden is the id of a job');
  return { as: 'job', jobId: golden };
}

function readPattern(source: string): RegExp {
  try {
    return new RegExp(source, 'u');
  } catch (error) {
    throw new SyntaxError(`ignore: ${(error as Error).message}`);
  }
}

function readSpan(name: string, text: string): number {
  const seconds = secondsIn(text);
  if (seconds === undefined || seconds === 0)
    throw new SyntaxError(`${name} must be a DURATION, as in 90s, 10m, 24h or 7d`);
  return seconds;
}

function readChannel(kind: string, words: string[], line: number): Channel {
  if (kind === 'mail') return readMail(words, line);
  if (kind === 'command') {
    if (!words[0]?.startsWith('/')) throw new SyntaxError('a command begins with an absolute path');
    return { line, kind, words };
  }
  if (kind !== 'webhook') throw new SyntaxError(`${kind || 'nothing'} is not one of mail, webhook, command`);
  const [url = '', ...rest] = words;
  return { line, kind, url: readUrl(url), secretFile: readPath(readPairs(rest, ['secret-file']).one('secret-file')) };
}

/** The receiver of a channel. */
export function targetOf(channel: Channel): string {
  if (channel.kind === 'mail') return channel.to.join(',');
  return channel.kind === 'webhook' ? channel.url : channel.words.join(' ');
}

function addChannel(channels: Channel[], channel: Channel): void {
  const same = channels.find((one) => one.kind === channel.kind && targetOf(one) === targetOf(channel));
  if (same) throw new SyntaxError(`line ${same.line} has the same channel`);
  channels.push(channel);
}

const ADDRESS = /^[^\s@,<>"-][^\s@,<>"]{0,63}@[A-Za-z0-9.-]{1,255}$/;

function readMail([given = '', ...words]: string[], line: number): Channel {
  const { one } = readPairs(words, ['from', 'sendmail', 'smtp', 'user', 'password-file']);
  const to = given.split(',');
  const from = one('from') ?? to[0] ?? '';
  const wrong = [...to, from].find((address) => !ADDRESS.test(address));
  if (wrong !== undefined) throw new SyntaxError(`${wrong || 'nothing'} is not an address, as in ops@example.org`);
  const [smtp, user, passwordFile] = [one('smtp'), one('user'), readPath(one('password-file'))];
  if (smtp !== undefined && !/^smtps?:\/\/(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/.test(smtp))
    throw new SyntaxError('smtp is smtp://HOST:PORT or smtps://HOST:PORT, without a password');
  if ((user === undefined) !== (passwordFile === undefined))
    throw new SyntaxError('user and password-file must be given together');
  if (user !== undefined && smtp === undefined) throw new SyntaxError('user requires smtp');
  const sendmail = readPath(one('sendmail')) ?? '/usr/sbin/sendmail';
  return { line, kind: 'mail', to, from, sendmail, smtp, user, passwordFile };
}

function readPath(path: string | undefined): string | undefined {
  if (path !== undefined && !path.startsWith('/'))
    throw new SyntaxError(`${path || 'nothing'} is not an absolute path`);
  return path;
}

/** A URL, or `@FILE` for one that is a secret. */
function readUrl(text: string): string {
  if (text.startsWith('@')) {
    readPath(text.slice(1));
    return text;
  }
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol))
    throw new SyntaxError(`${text || 'nothing'} is not an http or https URL`);
  if (url.password !== '') throw new SyntaxError('put a URL with a password into a file: @FILE');
  return text;
}

const WARNINGS = 'certificates, disk, inodes, checkpoint, verify, rollout';

function readWarning(warnings: Warnings, what: string, words: string[]): void {
  const [first = '', ...rest] = words;
  if (what === 'rollout') {
    if (words.length > 0) throw new SyntaxError('rollout takes no arguments');
    warnings.rollout = true;
    return;
  }
  if (what === 'verify') {
    const since = readPairs(rest, ['since']).one('since');
    warnings.verify = {
      every: readSpan(what, first),
      since: since === undefined ? undefined : readSpan('since', since),
    };
    return;
  }
  if (rest.length > 0) throw new SyntaxError(`${what} takes one word`);
  if (what === 'certificates' || what === 'checkpoint') warnings[what] = readSpan(what, first);
  else if (what === 'disk' || what === 'inodes') warnings[what] = readLimit(what, first);
  else throw new SyntaxError(`${what || 'nothing'} is not one of ${WARNINGS}`);
}

const SIZES = ['', 'k', 'M', 'G', 'T'];

function readLimit(what: string, text: string): Limit {
  const [, number = '', unit = ''] = /^(\d{1,9}(?:\.\d+)?)([%kMGT]?)$/.exec(text) ?? [];
  if (number === '' || (unit === '%' && Number(number) > 100))
    throw new SyntaxError(`${what} must be a share or a number, as in 5% or 20G`);
  return unit === '%' ? { part: Number(number) / 100 } : { count: Number(number) * 1000 ** SIZES.indexOf(unit) };
}

function readQuiet(text: string): [number, number] {
  const [, ...parts] = /^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$/.exec(text) ?? [];
  const [fromHour, fromMinute, toHour, toMinute] = parts.map(Number);
  if (toMinute === undefined) throw new SyntaxError('quiet must be two times of day, as in 22:00-06:00');
  const [from, to] = [(fromHour ?? 0) * 60 + (fromMinute ?? 0), (toHour ?? 0) * 60 + toMinute];
  if (from === to) throw new SyntaxError('quiet begins and ends at the same time');
  return [from, to];
}

/** Whether an event was last seen too long ago, or never. */
export function isOverdue(seenAt: Date | undefined, within: number, now: Date): boolean {
  return seenAt === undefined || seenAt.getTime() < now.getTime() - within * 1000;
}

/** Whether a minute of the day is in the quiet hours. */
export function isQuiet({ quiet }: Pick<Rules, 'quiet'>, minutesOfDay: number): boolean {
  if (!quiet) return false;
  const [from, to] = quiet;
  return from < to ? minutesOfDay >= from && minutesOfDay < to : minutesOfDay >= from || minutesOfDay < to;
}
