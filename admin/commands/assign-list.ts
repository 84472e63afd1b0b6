// webjobctl assign list: lists assignments and when they are due.
import { Command } from 'commander';
import { formatTime } from 'webjob-protocol';
import { EXIT_CODES } from '../../cli/failure.ts';
import { formatTable, printJson, printLines } from '../../cli/output.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { describeAssignment, describeCommand, describeSchedule } from '../fleet/assigning.ts';
import { readBook } from '../fleet/assignments.ts';
import { globalOptions, openSite } from '../site/site.ts';

const EXPLANATION = `
Example:
  webjobctl assign list --all

Exit codes:
  0  listed
  1  no assignments
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read`;

export function listCommand(): Command {
  return new Command('list')
    .description('list assignments')
    .option('--all', 'include finished and cancelled ones')
    .addHelpText('after', EXPLANATION)
    .action(({ all }: { all?: true }, command: Command) => {
      const { settings } = openSite(command);
      const { active, past } = readBook(settings);
      const rows = all ? [...past, ...active] : active;
      if (rows.length === 0) process.exitCode = EXIT_CODES.findings;
      if (globalOptions(command).json) for (const row of rows) printJson(describeAssignment(row));
      else if (rows.length > 0) printLines(formatTable(rows, columnsOf(settings.useGMT)));
    });
}

const columnsOf = (useGMT: boolean) => {
  const time = (seconds: number): string => formatTime(new Date(seconds * 1000), useGMT).slice(0, 16);
  return [
    { title: 'ID', align: 'right' as const, value: ({ id }: Assignment) => id },
    { title: 'STATE', value: ({ state }: Assignment) => state },
    { title: 'WHEN', value: ({ schedule }: Assignment) => describeSchedule(schedule) },
    { title: 'FROM', value: ({ from }: Assignment) => time(from) },
    { title: 'UNTIL', value: ({ until }: Assignment) => (until === undefined ? '-' : time(until)) },
    { title: 'TO', value: ({ to }: Assignment) => to.join(',') },
    { title: 'COMMAND', value: (assignment: Assignment) => describeCommand(assignment) },
  ];
};
