// webjobctl assign show: shows an assignment and the state of each of its clients.
import { Command, Option } from 'commander';
import { formatTime } from 'webjob-protocol';
import { EXIT_CODES } from '../../cli/failure.ts';
import { formatTable, printJson, printLine, printLines, safeLine } from '../../cli/output.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { describeExit } from '../../ledger/fields.ts';
import { readGroups } from '../../ledger/groups.ts';
import { parseNote } from '../../notes/note.ts';
import { type Context, type ContextOptions, openContext, userFileOption } from '../clients/context.ts';
import { describeAssignment, describeCommand, describeSchedule, isoOf } from '../fleet/assigning.ts';
import { findAssignment, readBook } from '../fleet/assignments.ts';
import { findTargets, listClientIds } from '../fleet/clients.ts';
import {
  CLIENT_STATES,
  type ClientProgress,
  type ClientState,
  describeProgress,
  readProgress,
} from '../fleet/states.ts';
import { openSite } from '../site/site.ts';

interface Options extends ContextOptions {
  state?: ClientState;
}

const EXPLANATION = `
Each client is in one state: waiting, fetched, done, failed, lost (fetched without a result), expired or cancelled.
When a schedule is due again, its clients are waiting again.

Examples:
  webjobctl assign show 7
  webjobctl --json assign show 7 --state failed | jq -r 'select(.client).client'

Exit codes:
  0  shown; no client failed or was lost
  1  a client failed or was lost, or no assignment has this number
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read`;

export function showCommand(): Command {
  return new Command('show')
    .description('show an assignment and its clients')
    .argument('<NUMBER>', 'its number')
    .addOption(new Option('--state <STATE>', 'only clients in this state').choices(CLIENT_STATES))
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((id: string, options: Options, command: Command) => show(command, openContext(command), id, options));
}

async function show(command: Command, context: Context, id: string, { state }: Options): Promise<void> {
  const book = readBook(context.settings);
  const assignment = findAssignment(book, id);
  // A glob is never the name of a group.
  const isAllGlobs = assignment.to.every((word) => /[*?]/.test(word));
  const groups = isAllGlobs ? new Map() : readGroups(context.settings);
  const targets = findTargets(assignment, groups, listClientIds(context));
  const progress = await readProgress(openSite(command), book, assignment, targets);
  const { counts, size } = progress;
  const shown = [...progress.clients(state === undefined ? CLIENT_STATES : [state])];
  if (counts.failed + counts.lost > 0) process.exitCode = EXIT_CODES.findings;
  if (context.isJson) {
    printJson({ ...describeAssignment(assignment), clients: size, states: counts });
    for (const client of shown) printJson(describeProgress(client));
    return;
  }
  for (const line of describe(assignment)) printLine(safeLine(line));
  const parts = CLIENT_STATES.filter((name) => counts[name] > 0).map((name) => `${counts[name]} ${name}`);
  printLine(`clients   ${size}${parts.length > 0 ? `: ${parts.join(', ')}` : ''}`);
  if (shown.length > 0) printLines(['', ...formatTable(shown, columnsOf(context.settings.useGMT))]);
}

function describe(assignment: Assignment): string[] {
  const { id, state, schedule, from, until, to, by, at, reason, rollout, limit, note } = assignment;
  return [
    `id        ${id}, ${state}`,
    `command   ${describeCommand(assignment)}`,
    `to        ${to.join(', ')}`,
    `when      ${describeSchedule(schedule)}, from ${isoOf(from)}${until === undefined ? '' : ` until ${isoOf(until)}`}`,
    ...(rollout
      ? [`stage     ${rollout.stage + 1} of ${rollout.stages.length}: ${describeParts(rollout.stages)}`]
      : []),
    ...(limit === undefined ? [] : [`limit     ${limit} at once`]),
    ...(note === undefined ? [] : [`signed    ${describeSigners(note)}`]),
    `by        ${by} at ${at}${reason === undefined ? '' : `: ${reason}`}`,
  ];
}

/** The names of those who claim to have signed the assignment. */
function describeSigners(note: string): string {
  return parseNote(Buffer.from(note))
    .signatures.map(({ name, id }) => `${name}+${id}`)
    .join(', ');
}

/** `1%, 10%, 100%` */
function describeParts(parts: readonly number[]): string {
  return parts.map((part) => `${Number((part * 100).toFixed(2))}%`).join(', ');
}

function columnsOf(useGMT: boolean) {
  return [
    { title: 'CLIENT', value: ({ clientId }: ClientProgress) => clientId },
    { title: 'STATE', value: ({ state }: ClientProgress) => state },
    {
      title: 'DUE',
      value: ({ due }: ClientProgress) =>
        due === undefined ? '-' : formatTime(new Date(due * 1000), useGMT).slice(0, 19),
    },
    {
      title: 'EXIT',
      value: ({ job, webjobExit }: ClientProgress) =>
        (job && describeExit(job)) ?? (webjobExit === undefined ? '-' : `webjob ${webjobExit}`),
    },
    { title: 'JOB', value: ({ job }: ClientProgress) => job?.jobId ?? '-' },
  ];
}
