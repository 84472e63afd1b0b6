// webjobctl assign: what clients run when they fetch their batch, and how far that has come.
import { Command } from 'commander';
import { addCommand } from './assign-add.ts';
import { advanceCommand } from './assign-advance.ts';
import { cancelCommand } from './assign-cancel.ts';
import { listCommand } from './assign-list.ts';
import { pauseCommand } from './assign-pause.ts';
import { resumeCommand } from './assign-resume.ts';
import { retryCommand } from './assign-retry.ts';
import { showCommand } from './assign-show.ts';

const EXPLANATION = `
A client that runs "webjob -e -f FILE batch" from cron runs what is assigned to it, at most once for each due time.
BatchCommand in nph-webjob.cfg names the command, here batch. C clients take part unchanged.

Examples:
  webjobctl assign host.sh --to 'web-*' --reason 'inventory'
  webjobctl assign --to servers --every 1h -- netstat.sh -an
  webjobctl assign show 7

Exit codes: those of webjobctl; each command's own are in its help.`;

export function assignCommand(): Command {
  const command = new Command('assign')
    .description('assign commands to clients, and follow their progress')
    .helpCommand(false)
    .addHelpText('after', EXPLANATION)
    .addCommand(addCommand(), { isDefault: true });
  for (const make of [
    listCommand,
    showCommand,
    pauseCommand,
    resumeCommand,
    cancelCommand,
    retryCommand,
    advanceCommand,
  ])
    command.addCommand(make());
  return command;
}
