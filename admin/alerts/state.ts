// The state of alerts between runs of `webjobctl alert`: the known problems and the messages to be
// sent. Every decision is written together with its message before anything is sent, so that a kill
// neither loses nor repeats one.
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { keepFolder } from '../site/site-lock.ts';

/** A problem of the site. */
export interface Problem {
  /**
   * The name of the problem, which stays the same while the problem persists; its first word is the
   * check that found it.
   */
  key: string;
  what: string;
  /** A client, a file, or a job id. */
  where: string;
}

/** A problem that persists; times are milliseconds since 1970. */
interface OpenProblem extends Problem {
  beganAt: number;
  toldAt: number;
}

export interface AlertEvent extends Problem {
  kind: 'begun' | 'ended' | 'goes on';
  beganAt: number;
  at: number;
}

/** A message for every channel. */
export interface Message {
  /** Identifies the message for its receiver. */
  id: string;
  at: number;
  events: AlertEvent[];
}

/** A message on its way over one channel. */
export interface Delivery {
  messageId: string;
  channel: string;
  /** How often an attempt was begun. After the first one, the receiver may have the message. */
  attempts: number;
}

export interface AlertState {
  version: 1;
  problems: OpenProblem[];
  /** Events held back until the end of the quiet hours. */
  held: AlertEvent[];
  messages: Message[];
  /** Messages in the order of sending. */
  outbox: Delivery[];
  /** Channels that failed, by name: how often in a row, and when they are tried again. */
  failures: Record<string, { count: number; nextAt: number }>;
  /** The last verification: when it began, and the problems that it found. */
  verified: { at: number; problems: Problem[] } | undefined;
}

const EMPTY: AlertState = {
  version: 1,
  problems: [],
  held: [],
  messages: [],
  outbox: [],
  failures: {},
  verified: undefined,
};

export function statePath(settings: ServerSettings): string {
  return join(keepFolder(settings), 'alert.state');
}

/**
 * Reads the state. Throws Failure `failed` for a damaged one, because starting over would report
 * everything again.
 */
export function readState(settings: ServerSettings): AlertState {
  const path = statePath(settings);
  if (!existsSync(path)) return structuredClone(EMPTY);
  try {
    const state = JSON.parse(readFileSync(path, 'utf8')) as AlertState;
    if (state.version !== 1 || !Array.isArray(state.outbox)) throw new SyntaxError('another version wrote it');
    return state;
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : errorCode(error);
    throw new Failure('failed', `${path} cannot be read: ${reason}`, `mv ${quote(path)} ${quote(`${path}.bad`)}`);
  }
}

/** Writes the state, which is on disk when this returns. The caller holds the lock. */
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

/** The problems at this moment. */
export interface Look {
  problems: readonly Problem[];
  /** Checks that failed; the problems they found before persist. */
  failed: ReadonlySet<string>;
}

export interface Policy {
  /** The names of the channels. */
  channels: readonly string[];
  /** Seconds. */
  remind: number | undefined;
  isQuiet: boolean;
}

/** The check that found a problem. */
export function checkOf({ key }: Pick<Problem, 'key'>): string {
  return key.split(' ', 1)[0] ?? '';
}

/**
 * Compares the findings with the state: updates the problems and adds a message with all new events
 * for every channel, except in quiet hours. Returns the events.
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

/** Removes messages that have been delivered over all channels. */
export function forgetSent(state: AlertState): void {
  const wanted = new Set(state.outbox.map(({ messageId }) => messageId));
  state.messages = state.messages.filter(({ id }) => wanted.has(id));
}

/**
 * When to try a channel again: the first pause is the configured one, each further one is twice as
 * long, up to an hour.
 */
export function nextAttemptAt(count: number, retrySeconds: number, now: number): number {
  return now + Math.min(retrySeconds * 2 ** Math.min(count - 1, 20), Math.max(3600, retrySeconds)) * 1000;
}
