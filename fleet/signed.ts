// Signed assignments: notes that bind a command and its arguments to clients and to due times, so
// that a stolen server can hand out only commands that trusted keys signed (docs/protocol.md,
// section 12). Both signers and clients use this file.
import { isFileName } from 'webjob-protocol';
import { findOutside, formatSeconds, parseSeconds } from '../notes/manifest.ts';
import { MAX_NOTE_BYTES, NoteError, parseNote, verifyNote } from '../notes/note.ts';
import { type TrustedKey, weightOf } from '../notes/trust.ts';
import type { Order } from './batch-script.ts';
import { lastDue, parseCron, type Schedule } from './due.ts';
import { isTarget } from './groups.ts';

/** The contents of the text of a signed assignment. */
export interface AssignmentText {
  command: string;
  args: readonly string[];
  /** Client ids, and globs for them; at least one. */
  clients: readonly string[];
  schedule: Schedule;
  /** Whole seconds: the first due time is not earlier. */
  notBefore: Date;
  /** Whole seconds: the command is not run after this time. */
  notAfter: Date;
  /** Distinguishes assignments that are otherwise equal. */
  serial: number;
}

/** A signed assignment whose signatures are good and reach the threshold. */
export interface OpenedAssignment {
  assignment: AssignmentText;
  /** The signed text. */
  text: string;
  signers: TrustedKey[];
}

/** The extension of files with a signed assignment. */
export const ASSIGNMENT_SUFFIX = '.assignment';

const FIRST_LINE = 'webjob-assignment/v1';
const NUMBER = '0|[1-9][0-9]{0,14}';
const TEXT = new RegExp(
  `^${FIRST_LINE}\ncommand (?<command>.+)\narguments (?<args>\\[.*\\])\n(?<clients>(?:client .+\n)+)` +
    `when (?<when>once|every [1-9][0-9]{0,8}|cron .+)\nnot-before (?<from>.+)\nnot-after (?<to>.+)\nserial (?<serial>${NUMBER})\n$`,
);

/** The largest difference between the clocks of signer, server and client. */
const CLOCK_SKEW_SECONDS = 600;

/**
 * Formats the text of an assignment to be signed. Throws NoteError for an assignment that
 * parseAssignmentText() would reject.
 */
export function formatAssignmentText(assignment: AssignmentText): string {
  const { command, args, clients, schedule, notBefore, notAfter, serial } = assignment;
  const globs = clients.map((glob) => `client ${glob}\n`).join('');
  const times = `not-before ${formatSeconds(notBefore)}\nnot-after ${formatSeconds(notAfter)}\n`;
  const what = `command ${command}\narguments ${JSON.stringify(args)}\n`;
  const text = `${FIRST_LINE}\n${what}${globs}when ${formatWhen(schedule)}\n${times}serial ${serial}\n`;
  parseAssignmentText(text);
  return text;
}

/** Parses the text of an assignment. Throws NoteError unless the text is exactly one assignment. */
export function parseAssignmentText(text: string): AssignmentText {
  const found = TEXT.exec(text)?.groups;
  const { command = '', args = '', clients = '', when = '', from, to, serial } = found ?? {};
  const globs = clients.trimEnd().split('\n');
  const words = globs.map((line) => line.slice('client '.length));
  if (found === undefined || !isFileName(command) || !words.every(isTarget))
    throw new NoteError('not the text of an assignment');
  const [notBefore, notAfter] = [parseSeconds(from), parseSeconds(to)];
  if (notBefore >= notAfter) throw new NoteError('it ends before it begins');
  return {
    command,
    args: parseArguments(args),
    clients: words,
    schedule: parseWhen(when),
    notBefore,
    notAfter,
    serial: Number(serial),
  };
}

/**
 * Checks the signatures of an assignment; findRefusal() checks its content.
 *
 * @throws NoteError for bytes that are not an assignment, for a wrong signature of a trusted key,
 *     and below the threshold
 */
export function openAssignment(bytes: Uint8Array, trusted: readonly TrustedKey[], threshold: number): OpenedAssignment {
  if (bytes.length > MAX_NOTE_BYTES) throw new NoteError(`longer than ${MAX_NOTE_BYTES} bytes`);
  const note = parseNote(bytes);
  const signers = verifyNote(note, trusted);
  const weight = weightOf(signers);
  if (weight < threshold) throw new NoteError(`signed with a weight of ${weight}, but ${threshold} is required`);
  return { assignment: parseAssignmentText(note.text), text: note.text, signers };
}

/**
 * Why a client must not run an order with this signed assignment at the time at which it received
 * the order; undefined when it may. Does not check whether the client has run the order before.
 */
export function findRefusal(
  assignment: AssignmentText,
  { command, args, due }: Order,
  { clientId, at }: { clientId: string; at: Date },
): string | undefined {
  if (command !== assignment.command) return `it is for ${assignment.command}, not ${command}`;
  if (JSON.stringify(args) !== JSON.stringify(assignment.args)) return 'it is for other arguments';
  const { clients, notBefore, notAfter, schedule } = assignment;
  const from = notBefore.getTime() / 1000;
  const early = new Date((from - CLOCK_SKEW_SECONDS) * 1000);
  const outside = findOutside({ clients, notBefore: early, notAfter }, { clientId, at });
  if (outside !== undefined) return outside;
  const now = Math.floor(at.getTime() / 1000);
  if (lastDue(schedule, from, due) !== due) return `it is never due at ${due}`;
  if (due > now + CLOCK_SKEW_SECONDS) return `it is due at ${due}, which is in the future`;
  // Due times that a client missed while it was away are skipped, as by a server.
  return due < (lastDue(schedule, from, now - CLOCK_SKEW_SECONDS) ?? from)
    ? `it was due again after ${due}`
    : undefined;
}

function formatWhen(schedule: Schedule): string {
  if (schedule.kind === 'cron') return `cron ${schedule.cron}`;
  return schedule.kind === 'every' ? `every ${schedule.seconds}` : 'once';
}

function parseWhen(text: string): Schedule {
  const [, kind, rest = ''] = /^(\w+) ?(.*)$/.exec(text) ?? [];
  if (kind === 'once') return { kind };
  if (kind === 'every') return { kind, seconds: Number(rest) };
  try {
    parseCron(rest);
    return { kind: 'cron', cron: rest };
  } catch (error) {
    throw new NoteError((error as Error).message);
  }
}

/** Only the form that formatAssignmentText() writes is accepted. */
function parseArguments(text: string): string[] {
  try {
    const args: unknown = JSON.parse(text);
    const isText = (arg: unknown): arg is string => typeof arg === 'string' && !arg.includes('\0');
    if (Array.isArray(args) && args.every(isText) && JSON.stringify(args) === text) return args;
  } catch {
    // Reported below.
  }
  throw new NoteError('its arguments are not a list of texts');
}
