// Assignments: a command, the clients that run it, and when. webjobctl writes them into one file, a
// line for each; the server reads the file for each batch that a client requests (docs/protocol.md,
// section 12).
import { newHash } from 'webjob-locker';
import { isFileName } from 'webjob-protocol';
import { lastDue, parseCron, type Schedule } from './due.ts';
import { isTarget } from './groups.ts';

/** A rollout, which reaches the clients in stages. */
export interface Rollout {
  /** Fractions of all clients, ascending, the last one 1. */
  stages: readonly number[];
  /** The index of the current stage. */
  stage: number;
  /** When the stage was opened, in seconds since 1970. */
  openedAt: number;
  /** The fraction of failures above which the rollout is paused. */
  stopAt: number | undefined;
  /**
   * Seconds after which the next stage is opened even if some clients are missing; undefined to
   * wait for all.
   */
  seconds: number | undefined;
}

export interface Assignment {
  /** A number, counted from 1. */
  id: string;
  command: string;
  args: readonly string[];
  /** Client ids, globs and groups. */
  to: readonly string[];
  schedule: Schedule;
  /** When the assignment is due for the first time, in seconds since 1970. */
  from: number;
  /** When the assignment ends, in seconds since 1970. */
  until: number | undefined;
  state: 'active' | 'paused' | 'cancelled';
  /**
   * Only clients with a rank below this value may fetch the assignment: in a rollout, the fraction
   * of the current stage.
   */
  open: number;
  rollout?: Rollout | undefined;
  /** How many clients may run the command at once; undefined for any number. */
  limit?: number | undefined;
  /** The note that its signers signed, for clients that require one: see signed.ts. */
  note?: string | undefined;
  by: string;
  /** ISO 8601. */
  at: string;
  reason: string | undefined;
}

/**
 * The limit for all arguments together: a program accepts two megabytes, and a single argument 128
 * KiB (execve(2)).
 */
export const MAX_ARGUMENT_BYTES = 120_000;
const isSeconds = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown): value is string => typeof value === 'string';
const areTexts = (value: unknown): value is string[] => Array.isArray(value) && value.every(isText);

/** Formats a line without its newline. */
export function formatAssignment(assignment: Assignment): string {
  const { schedule, ...rest } = assignment;
  const when =
    schedule.kind === 'every' ? { every: schedule.seconds } : schedule.kind === 'cron' ? { cron: schedule.cron } : {};
  return JSON.stringify({ ...rest, ...when });
}

/**
 * Parses assignments. Throws a SyntaxError that names the line, counted from 1, and the problem.
 */
export function parseAssignments(text: string): Assignment[] {
  return text.split('\n').flatMap((line, index) => {
    if (line.trim() === '') return [];
    try {
      return [parseAssignment(JSON.parse(line))];
    } catch (error) {
      throw new SyntaxError(`line ${index + 1}: ${(error as Error).message}`);
    }
  });
}

function parseAssignment(facts: Record<string, unknown>): Assignment {
  const {
    id,
    command,
    args = [],
    to,
    every,
    cron,
    from,
    until,
    state = 'active',
    open = 1,
    by = '',
    at = '',
    reason,
    rollout,
    limit,
    note,
  } = facts;
  // A server reads all assignments for one request, so parsing each must be cheap.
  if (!isText(id) || !ID.test(id)) throw wrong('id');
  if (!isText(command) || !isFileName(command)) throw wrong('command');
  if (!areTexts(args) || args.some((text) => text.includes('\0'))) throw wrong('args');
  if (!areTexts(to) || to.length === 0 || !to.every(isTarget)) throw wrong('to');
  if (every !== undefined && !(isSeconds(every) && every > 0 && cron === undefined)) throw wrong('every');
  if (!isSeconds(from)) throw wrong('from');
  if (state !== 'active' && state !== 'paused' && state !== 'cancelled') throw wrong('state');
  if (typeof open !== 'number' || !(open >= 0 && open <= 1)) throw wrong('open');
  if (!isText(by) || !isText(at)) throw wrong('by');
  if (until !== undefined && !isSeconds(until)) throw wrong('until');
  if (reason !== undefined && !isText(reason)) throw wrong('reason');
  if (cron !== undefined && !isText(cron)) throw wrong('cron');
  if (note !== undefined && !isText(note)) throw wrong('note');
  if (rollout !== undefined && !isRollout(rollout as Rollout)) throw wrong('rollout');
  if (limit !== undefined && !(isSeconds(limit) && limit > 0)) throw wrong('limit');
  const schedule = scheduleOf(every as number | undefined, cron);
  const assignment: Assignment = { id, command, args, to, schedule, from, until, state, open, by, at, reason };
  if (rollout !== undefined) assignment.rollout = rollout as Rollout;
  if (limit !== undefined) assignment.limit = limit;
  if (note !== undefined) assignment.note = note;
  return assignment;
}

const ID = /^[1-9][0-9]{0,8}$/;
const wrong = (name: string): SyntaxError => new SyntaxError(`${name} is malformed`);

function scheduleOf(every: number | undefined, cron: string | undefined): Schedule {
  if (cron === undefined) return every === undefined ? { kind: 'once' } : { kind: 'every', seconds: every };
  parseCron(cron);
  return { kind: 'cron', cron };
}

function isRollout({ stages, stage, openedAt, stopAt, seconds }: Rollout): boolean {
  const isPart = (part: unknown): boolean => typeof part === 'number' && part >= 0 && part <= 1;
  return (
    Array.isArray(stages) &&
    stages.every(isPart) &&
    isSeconds(stage) &&
    stage < stages.length &&
    isSeconds(openedAt) &&
    (stopAt === undefined || isPart(stopAt)) &&
    (seconds === undefined || isSeconds(seconds))
  );
}

/** The value of `open` that includes at least this fraction of the clients. */
export function openFor(assignment: Pick<Assignment, 'id'>, clientIds: readonly string[], part: number): number {
  const ranks = clientIds.map((clientId) => rankOf(assignment, clientId)).sort((a, b) => a - b);
  return part >= 1 ? 1 : (ranks[Math.ceil(part * ranks.length)] ?? 1);
}

/** The rank of a client in a rollout, from 0 to less than 1, different for each assignment. */
export function rankOf({ id }: Pick<Assignment, 'id'>, clientId: string): number {
  return Buffer.from(newHash().update(`${id} ${clientId}`).digest('hex'), 'hex').readUInt32BE(0) / 2 ** 32;
}

/** A client and its groups. */
export interface Reached {
  clientId: string;
  /** Whether a word of `to` names this client. */
  isMeant: (word: string) => boolean;
}

/**
 * When an assignment was last due for a client, up to `now`, both in seconds since 1970; undefined
 * when it is not due for the client now.
 */
export function dueFor(assignment: Assignment, { clientId, isMeant }: Reached, now: number): number | undefined {
  const { state, open, schedule, from, until, to } = assignment;
  if (state !== 'active' || now < from || (until !== undefined && now >= until)) return undefined;
  if (!to.some(isMeant)) return undefined;
  if (open < 1 && rankOf(assignment, clientId) >= open) return undefined;
  return lastDue(schedule, from, now);
}
