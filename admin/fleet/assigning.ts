// Code that the commands about assignments share: makes, changes, shows and records them.
import { existsSync } from 'node:fs';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { quote } from '../../cli/shell.ts';
import { formatSpan } from '../../cli/spans.ts';
import { operatorName, recordEvent } from '../../evidence/events.ts';
import { type Assignment, openFor, type Rollout } from '../../fleet/assignment.ts';
import type { Schedule } from '../../fleet/due.ts';
import { type Book, changeBook, findAssignment, nextId } from './assignments.ts';

/**
 * Checks that a command can be assigned. Throws Failure `settings` when the server makes no
 * batches, and `usage` for the batch command itself.
 */
export function checkBatch({ batchCommand, dynamicDirectory }: ServerSettings, command: string): void {
  if (batchCommand === '')
    throw new Failure(
      'settings',
      'BatchCommand is not set, so no client gets assignments',
      'add the line BatchCommand=batch to nph-webjob.cfg, and have clients run: webjob -e -f FILE batch',
    );
  if (!existsSync(dynamicDirectory))
    throw new Failure(
      'settings',
      `DynamicDirectory is missing, in which the server records what it hands out: ${dynamicDirectory}`,
      `install -d -o www-data -g root -m 755 ${quote(dynamicDirectory)}  # with the user of httpd`,
    );
  if (command === batchCommand)
    throw new Failure('usage', `${command} is the batch itself, and would run forever`, 'assign another command');
}

/**
 * Adds an assignment, which is recorded and on disk when this returns; with a rollout, for the
 * first stage of its clients.
 */
export async function addAssignment(
  settings: ServerSettings,
  plan: Omit<Assignment, 'id' | 'by' | 'at' | 'state' | 'open'>,
  rollout?: Rollout,
  targets: readonly string[] = [],
): Promise<Assignment> {
  return await changeBook(settings, (book) => {
    const id = nextId(book);
    const assignment: Assignment = {
      ...plan,
      id,
      state: 'active',
      rollout,
      open: rollout ? openFor({ id }, targets, rollout.stages[0] ?? 1) : 1,
      by: operatorName(),
      at: new Date().toISOString(),
    };
    recordEvent(settings, { event: 'assign', assignment: describeAssignment(assignment) });
    book.active.push(assignment);
    return assignment;
  });
}

const DAY = 86_400;

/**
 * The default end of a signed assignment, in seconds since 1970: a stolen signature must not be
 * valid forever.
 */
export function endSigned({ schedule, from }: Pick<Assignment, 'schedule' | 'from'>): number {
  return from + (schedule.kind === 'once' ? 30 : 365) * DAY;
}

/**
 * Sets the state of an assignment. Throws Failure `findings` for one that is over, or already has
 * that state.
 */
export async function setState(
  settings: ServerSettings,
  id: string,
  state: Assignment['state'],
  reason: string | undefined,
  by?: string,
): Promise<Assignment> {
  return await changeBook(settings, (book: Book) => {
    const assignment = findAssignment(book, id);
    if (!book.active.includes(assignment)) throw new Failure('findings', `assignment ${id} is over`);
    if (assignment.state === state) throw new Failure('findings', `assignment ${id} is ${state} already`);
    recordEvent(settings, { event: 'assign-change', id, state, reason }, by);
    assignment.state = state;
    return assignment;
  });
}

/** The assignment in the form that --json prints. */
export function describeAssignment(assignment: Assignment): Record<string, unknown> {
  const { id, command, args, to, schedule, from, until, state, by, at, reason, rollout, limit, note } = assignment;
  return {
    assignment: id,
    command,
    args,
    to,
    schedule: describeSchedule(schedule),
    state,
    by,
    at,
    stages: rollout?.stages ?? null,
    stage: rollout ? rollout.stage + 1 : null,
    limit: limit ?? null,
    signed: note !== undefined,
    from: isoOf(from),
    until: until === undefined ? null : isoOf(until),
    reason: reason ?? null,
  };
}

/** `once`, `every 3600 s`, `cron 0 3 * * *` */
export function describeSchedule(schedule: Schedule): string {
  if (schedule.kind === 'cron') return `cron ${schedule.cron}`;
  return schedule.kind === 'every' ? `every ${formatSpan(schedule.seconds)}` : 'once';
}

/** `host.sh -v 'two words'` */
export function describeCommand({ command, args }: Pick<Assignment, 'command' | 'args'>): string {
  return [command, ...args].map(quote).join(' ');
}

/** `2026-11-24T06:12:40.000Z` */
export function isoOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
