// Options of commands about many clients.
import { InvalidArgumentError } from 'commander';
import { isFileName } from 'webjob-protocol';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { type Assignment, MAX_ARGUMENT_BYTES } from '../../fleet/assignment.ts';
import { parseCron, type Schedule } from '../../fleet/due.ts';
import { isTarget } from '../../fleet/groups.ts';

/** When an assignment is due. */
export interface TimeOptions {
  once?: true;
  every?: number;
  cron?: string;
  notBefore?: Date;
  until?: Date;
}

/** When an assignment is due, in seconds since 1970. */
export interface Times {
  schedule: Schedule;
  from: number;
  until: number | undefined;
}

/**
 * Collects client ids, globs and groups, separated by commas, of a repeatable option. Throws
 * InvalidArgumentError.
 */
export function collectTargets(text: string, before: readonly string[] = []): string[] {
  const words = text.split(',').filter((word) => word !== '');
  const wrong = words.find((word) => !isTarget(word));
  if (words.length === 0 || wrong !== undefined)
    throw new InvalidArgumentError(`${wrong ?? 'it'} is not a client id, a glob or a group.`);
  return [...before, ...words];
}

/** The default of --since. */
export function monthAgo(): Date {
  return new Date(Date.now() - 30 * 86_400_000);
}

/** Combines the options about time. Throws Failure `usage` for those that exclude each other. */
export function timesOf(options: TimeOptions, now: number): Times {
  const schedule = scheduleOf(options);
  const from = options.notBefore ? Math.floor(options.notBefore.getTime() / 1000) : now;
  const until = options.until && Math.floor(options.until.getTime() / 1000);
  if (until !== undefined && until <= from) throw new Failure('usage', '--until must be after the first time');
  return { schedule, from, until };
}

/**
 * Checks the size of the arguments. Throws Failure `usage` when they exceed what a program can
 * receive.
 */
export function checkArguments(args: readonly string[]): void {
  const size = args.reduce((sum, arg) => sum + Buffer.byteLength(arg) + 1, 0);
  if (size > MAX_ARGUMENT_BYTES)
    throw new Failure('usage', `the arguments must be at most ${MAX_ARGUMENT_BYTES} bytes (got ${size})`);
}

function scheduleOf({ once, every, cron }: TimeOptions): Schedule {
  if ([once, every, cron].filter((value) => value !== undefined).length > 1)
    throw new Failure('usage', 'use one of --once, --every and --cron');
  if (cron !== undefined) return { kind: 'cron', cron };
  return every === undefined ? { kind: 'once' } : { kind: 'every', seconds: every };
}

/** Parses the name of a command. Throws InvalidArgumentError. */
export function parseCommand(text: string): Assignment['command'] {
  if (isFileName(text) && !text.startsWith('-')) return text;
  throw new InvalidArgumentError('a command is 1 to 1024 letters, digits and _ + . : -, and does not begin with -.');
}

/** Checks a cron expression, and returns it. Throws InvalidArgumentError. */
export function checkCron(text: string): string {
  try {
    parseCron(text);
    return text;
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`);
  }
}

/** Parses a time in the future: a DURATION from now, or a TIME. */
export function parseFuture(text: string): Date {
  if (/^[0-9]+[smhdw]$/.test(text)) return new Date(Date.now() + parseDuration(text) * 1000);
  return parseInstant(text);
}
