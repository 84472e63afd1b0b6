// Assignments: which command which clients are to run, and when. webjobctl writes them into one file, a line each; the server
// reads it for each batch that a client asks for (docs/protocol.md, section 12).
import { newHash } from 'webjob-locker';
import { isFileName } from 'webjob-protocol';
import { lastDue, parseCron, type Schedule } from './due.ts';
import { isTarget } from './groups.ts';

/** An assignment that reaches more and more of its clients. */
export interface Rollout {
  /** Parts of all clients, each larger than the one before, the last one 1. */
  stages: readonly number[];
  /** The index of the stage that is open. */
  stage: number;
  /** Seconds since 1970: when it was opened. */
  openedAt: number;
  /** The part of the results that may be bad; with more it is paused. */
  stopAt: number | undefined;
  /** Seconds after which the next stage is opened though some clients are missing; it waits for all when undefined. */
  seconds: number | undefined;
}

export interface Assignment {
  /** A number, counted from 1. */
  id: string;
  command: string;
  args: readonly string[];
  /** Client ids, globs of them and groups. */
  to: readonly string[];
  schedule: Schedule;
  /** Seconds since 1970: when it is due for the first time, or from when on. */
  from: number;
  /** Nobody gets it from then on. */
  until: number | undefined;
  state: 'active' | 'paused' | 'cancelled';
  /** Clients whose rank is below it may have it: of a rollout in stages the part that is open. */
  open: number;
  rollout?: Rollout | undefined;
  /** How many clients may be at it at once; any number when undefined. */
  limit?: number | undefined;
  /** The note that its signers signed, for clients that require one: see signed.ts. */
  note?: string | undefined;
  by: string;
  /** ISO 8601. */
  at: string;
  reason: string | undefined;
}

/** Of all arguments together: a program takes two megabytes, and one of them 128 KiB (execve(2)). */
export const MAX_ARGUMENT_BYTES = 120_000;
const isSeconds = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown): value is string => typeof value === 'string';
const areTexts = (value: unknown): value is string[] => Array.isArray(value) && value.every(isText);

/** One line, without its newline. */
export function formatAssignment(assignment: Assignment): string {
  const { schedule, ...rest } = assignment;
  const when =
    schedule.kind === 'every' ? { every: schedule.seconds } : schedule.kind === 'cron' ? { cron: schedule.cron } : {};
  return JSON.stringify({ ...rest, ...when });
}

/** Throws SyntaxError that names the line, counted from 1, and what is wrong in it. */
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
  const need = (name: string, isRight: boolean): void => {
    if (!isRight) throw new SyntaxError(`${name} is not as it should be`);
  };
  const needIfAny = (name: string, is: (value: unknown) => boolean): void =>
    need(name, facts[name] === undefined || is(facts[name]));
  need('id', isText(id) && /^[1-9][0-9]{0,8}$/.test(id));
  need('command', isText(command) && isFileName(command));
  need('args', areTexts(args) && !args.some((text) => text.includes('\0')));
  need('to', areTexts(to) && to.length > 0 && to.every(isTarget));
  need('every', every === undefined || (isSeconds(every) && every > 0 && cron === undefined));
  need('from', isSeconds(from));
  need('state', state === 'active' || state === 'paused' || state === 'cancelled');
  need('open', typeof open === 'number' && open >= 0 && open <= 1);
  need('by', isText(by) && isText(at));
  needIfAny('until', isSeconds);
  for (const name of ['reason', 'cron', 'note']) needIfAny(name, isText);
  needIfAny('rollout', (value) => isRollout(value as Rollout));
  needIfAny('limit', (value) => isSeconds(value) && value > 0);
  const schedule = scheduleOf(every as number | undefined, cron as string | undefined);
  const more = Object.fromEntries(Object.entries({ rollout, limit, note }).filter(([, value]) => value !== undefined));
  return { id, command, args, to, schedule, from, until, state, open, by, at, reason, ...more } as Assignment;
}

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

/** What `open` has to be for a part of these clients to be reached, rounded up. */
export function openFor(assignment: Pick<Assignment, 'id'>, clientIds: readonly string[], part: number): number {
  const ranks = clientIds.map((clientId) => rankOf(assignment, clientId)).sort((a, b) => a - b);
  return part >= 1 ? 1 : (ranks[Math.ceil(part * ranks.length)] ?? 1);
}

/** A client's place in the order in which a rollout reaches clients, from 0 to less than 1: another one for each assignment. */
export function rankOf({ id }: Pick<Assignment, 'id'>, clientId: string): number {
  return Buffer.from(newHash().update(`${id} ${clientId}`).digest('hex'), 'hex').readUInt32BE(0) / 2 ** 32;
}

/** A client as assignments ask for it. */
export interface Reached {
  clientId: string;
  /** Whether a word of `to` means it. */
  isMeant: (word: string) => boolean;
}

/** When a client was to run it last, up to `now` (both in seconds since 1970); undefined when it is not to run it now. */
export function dueFor(assignment: Assignment, { clientId, isMeant }: Reached, now: number): number | undefined {
  const { state, open, schedule, from, until, to } = assignment;
  if (state !== 'active' || now < from || (until !== undefined && now >= until)) return undefined;
  if (!to.some(isMeant)) return undefined;
  if (open < 1 && rankOf(assignment, clientId) >= open) return undefined;
  return lastDue(schedule, from, now);
}
