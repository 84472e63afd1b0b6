// webjobctl assign retry: assigns a command again to the clients on which it failed or did not run.
import { Command } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { readGroups } from '../../ledger/groups.ts';
import { type ContextOptions, openContext, userFileOption } from '../clients/context.ts';
import { addAssignment, checkBatch, describeAssignment } from '../fleet/assigning.ts';
import { findAssignment, readBook } from '../fleet/assignments.ts';
import { findTargets, listClientIds } from '../fleet/clients.ts';
import { readProgress } from '../fleet/states.ts';
import { openSite } from '../site/site.ts';

const EXPLANATION = `
An assignment that was fetched is never given again, so this command makes a new one, once, for the clients that
failed, were lost or did not fetch it in time. A signed assignment must be signed again: webjobctl sign assignment.

Example:
  webjobctl assign retry 7

Exit codes:
  0  assigned again
  1  no client failed, was lost or expired; or no assignment has this number
  2  wrong command line, or the assignment is signed
  3  nph-webjob.cfg cannot be used, or has no BatchCommand
  4  a file cannot be read or written`;

const RETRIED = ['failed', 'lost', 'expired'] as const;

export function retryCommand(): Command {
  return new Command('retry')
    .description('assign again to clients that failed, were lost or expired')
    .argument('<NUMBER>', 'its number')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action(async (id: string, _options: ContextOptions, command: Command) => {
      const context = openContext(command);
      const book = readBook(context.settings);
      const assignment = findAssignment(book, id);
      checkBatch(context.settings, assignment.command);
      if (assignment.note !== undefined)
        throw new Failure(
          'usage',
          `assignment ${id} is signed, and each client runs it only once`,
          'sign it again and assign that: webjobctl sign assignment',
        );
      const targets = findTargets(assignment, readGroups(context.settings), listClientIds(context));
      const progress = await readProgress(openSite(command), book, assignment, targets);
      const to = Array.from(progress.clients(RETRIED), ({ clientId }) => clientId);
      if (to.length === 0)
        throw new Failure('findings', `no client of assignment ${id} failed, was lost or came too late`);
      const again = await addAssignment(context.settings, {
        command: assignment.command,
        args: assignment.args,
        to,
        schedule: { kind: 'once' },
        from: Math.floor(Date.now() / 1000),
        until: undefined,
        reason: `retry of ${id}`,
      });
      if (context.isJson) printJson({ ...describeAssignment(again), clients: to.length });
      else printLine(`assignment ${again.id}: ${again.command} once more for ${countOf(to.length, 'client')}`);
    });
}
