// webjobctl assign: manages the commands that clients run when they fetch their batch, and shows
// their progress.
import { Command } from 'commander';

/** Each is loaded on demand, as the commands of webjobctl are. */
const COMMANDS: ReadonlyMap<string, () => Promise<() => Command>> = new Map([
  ['add', async () => (await import('./assign-add.ts')).addCommand],
  ['list', async () => (await import('./assign-list.ts')).listCommand],
  ['show', async () => (await import('./assign-show.ts')).showCommand],
  ['pause', async () => (await import('./assign-pause.ts')).pauseCommand],
  ['resume', async () => (await import('./assign-resume.ts')).resumeCommand],
  ['cancel', async () => (await import('./assign-cancel.ts')).cancelCommand],
  ['retry', async () => (await import('./assign-retry.ts')).retryCommand],
  ['advance', async () => (await import('./assign-advance.ts')).advanceCommand],
]);

const EXPLANATION = `
A client that runs "webjob -e -f FILE batch" from cron runs what is assigned to it, at most once for each due time.
BatchCommand in nph-webjob.cfg names the command, here batch. C clients take part unchanged.

Examples:
  webjobctl assign host.sh --to 'web-*' --reason 'inventory'
  webjobctl assign --to servers --every 1h -- netstat.sh -an
  webjobctl assign show 7

Exit codes: those of webjobctl; each command's own are in its help.`;

/**
 * Makes the assign command: with one subcommand when `next`, the word after `assign`, is its name;
 * otherwise with all.
 */
export async function assignCommand(next = ''): Promise<Command> {
  const command = new Command('assign')
    .description('assign commands to clients, and follow their progress')
    .helpCommand(false)
    .addHelpText('after', EXPLANATION);
  const known = COMMANDS.get(next);
  for (const [name, load] of known ? [[next, known] as const] : COMMANDS)
    command.addCommand((await load())(), { isDefault: name === 'add' });
  return command;
}
