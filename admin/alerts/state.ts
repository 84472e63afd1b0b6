// What is known of the problems of a site from one run of `webjobctl alert` to the next, and what is still to be sent. Every decision and the
// message that it makes are written in one step, before anything is sent: a kill loses none, and none is decided twice.
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/controls.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { keepFolder } from '../site/turn.ts';

/** Something that is not as it should be. */
export interface Problem {
  /** Its name for as long as it lasts; the first word says which check found it. */
  key: string;
  what: string;
  /** A client, a file, the id of a job. */
  where: string;
}

/** A problem that goes on; times are milliseconds since 1970. */
interface OpenProblem extends Problem {
  beganAt: number;
  toldAt: number;
}

export interface AlertEvent extends Problem {
  kind: 'begun' | 'ended' | 'goes on';
  beganAt: number;
  at: number;
}

/** What is sent over every channel. */
export interface Message {
  /** By which a receiver knows it again. */
  id: string;
  at: number;
  events: AlertEvent[];
}

/** A message on its way over one channel. */
export interface Delivery {
  messageId: string;
  channel: string;
  /** How often its sending was begun. After the first a receiver may have it already. */
  attempts: number;
}

export interface AlertState {
  version: 1;
  problems: OpenProblem[];
  /** Events that wait for the end of the quiet hours. */
  held: AlertEvent[];
  messages: Message[];
  /** In the order in which they are to be sent. */
  outbox: Delivery[];
  /** Channels that failed, by name: how often in a row, and when they are tried again. */
  failures: Record<string, { count: number; nextAt: number }>;
  /** The last verification: when it began, and what it found. */
  verified: { at: number; problems: Problem[] } | undefined;
}

const EMPTY: AlertState = {
  ...{ version: 1, problems: [], held: [], messages: [], outbox: [], failures: {}, verified: undefined },
};

export function statePath(settings: ServerSettings): string {
  return join(keepFolder(settings), 'alert.state');
}

/** Throws Failure `failed`: to begin anew would tell of everything once more. */
export function readState(settings: ServerSettings): AlertState {
  const path = statePath(settings);
  if (!existsSync(path)) return structuredClone(EMPTY);
  try {
    const state = JSON.parse(readFileSync(path, 'utf8')) as AlertState;
    if (state.version !== 1 || !Array.isArray(state.outbox)) throw new SyntaxError('it is not of this version');
    return state;
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : errorCode(error);
    throw new Failure('failed', `${path} cannot be read: ${reason}`, `mv ${quote(path)} ${quote(`${path}.bad`)}`);
  }
}

/** On disk when it returns. For whoever has the turn. */
export function writeState(settings: ServerSettings, state: AlertState): void {
  const path = statePath(settings);
  try {
    makeFolder(keepFolder(settings));
    removeUnfinished(path);
    replaceFile(path, `${JSON.stringify(state)}\n`, { mode: 0o600 });
  } catch (error) {
    throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`, undefined, { cause: error });
  }
}

/** What there is at this moment. */
export interface Look {
  problems: readonly Problem[];
  /** Checks that could not be made: what they found before goes on. */
  failed: ReadonlySet<string>;
}

export interface Policy {
  /** Names of the channels. */
  channels: readonly string[];
  /** Seconds. */
  remind: number | undefined;
  isQuiet: boolean;
}

/** The check that a problem is of. */
export function checkOf({ key }: Pick<Problem, 'key'>): string {
  return key.split(' ', 1)[0] ?? '';
}

/**
 * What a look changes: the problems that go on, and one message to every channel with all that is new, unless it is quiet. Changes the state, and
 * returns the events.
 */
export function takeLook(state: AlertState, { problems, failed }: Look, policy: Policy, now: number): AlertEvent[] {
  const events: AlertEvent[] = [];
  const known = new Map(state.problems.map((problem) => [problem.key, problem]));
  const found = new Map(problems.map((problem) => [problem.key, problem]));
  const open: OpenProblem[] = [];
  for (const problem of found.values()) {
    const before = known.get(problem.key);
    if (!before) events.push({ ...problem, kind: 'begun', beganAt: now, at: now });
    const isDue = before && policy.remind !== undefined && now - before.toldAt >= policy.remind * 1000;
    if (before && isDue) events.push({ ...problem, kind: 'goes on', beganAt: before.beganAt, at: now });
    const toldAt = before && !isDue ? before.toldAt : now;
    open.push({ ...problem, beganAt: before?.beganAt ?? now, toldAt });
  }
  for (const problem of known.values()) {
    if (found.has(problem.key)) continue;
    if (failed.has(checkOf(problem))) open.push(problem);
    else {
      const { key, what, where, beganAt } = problem;
      events.push({ key, what, where, beganAt, kind: 'ended', at: now });
    }
  }
  state.problems = open;
  state.held.push(...events);
  if (!policy.isQuiet && state.held.length > 0) {
    addMessage(state, { id: randomBytes(16).toString('hex'), at: now, events: state.held }, policy.channels);
    state.held = [];
  }
  return events;
}

function addMessage(state: AlertState, message: Message, channels: readonly string[]): void {
  state.messages.push(message);
  for (const channel of channels) state.outbox.push({ messageId: message.id, channel, attempts: 0 });
}

/** Forgets messages that are on no way any more. */
export function forgetSent(state: AlertState): void {
  const wanted = new Set(state.outbox.map(({ messageId }) => messageId));
  state.messages = state.messages.filter(({ id }) => wanted.has(id));
}

/** The first pause is that of the rules, each is twice as long as the one before, and none longer than an hour. */
export function nextAttemptAt(count: number, retrySeconds: number, now: number): number {
  return now + Math.min(retrySeconds * 2 ** Math.min(count - 1, 20), Math.max(3600, retrySeconds)) * 1000;
}
