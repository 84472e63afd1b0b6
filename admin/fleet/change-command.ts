// The commands that set the state of an assignment.
import { Command } from 'commander';
import { printJson, printLine } from '../../cli/output.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { globalOptions, openSite } from '../site/site.ts';
import { describeAssignment, setState } from './assigning.ts';

/** Makes a command that sets a state for the given assignments. */
export function makeChangeCommand(
  name: string,
  description: string,
  state: Assignment['state'],
  said: string,
): Command {
  return new Command(name)
    .description(description)
    .argument('<NUMBER>', 'its number')
    .option('--reason <TEXT>', 'the reason, for the custody record')
    .addHelpText(
      'after',
      `
Example:
  webjobctl assign ${name} 7 --reason 'case 4711'

Exit codes:
  0  done
  1  no assignment has this number, it has ended, or it has this state already
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be written`,
    )
    .action(async (id: string, { reason }: { reason?: string }, command: Command) => {
      const assignment = await setState(openSite(command).settings, id, state, reason);
      if (globalOptions(command).json) printJson(describeAssignment(assignment));
      else printLine(`assignment ${id} ${said}`);
    });
}
