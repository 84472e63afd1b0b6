// webjobctl sign trust: manages the keys that clients trust.
import { Command } from 'commander';
import { addCommand } from './sign-trust-add.ts';
import { listCommand } from './sign-trust-list.ts';
import { removeCommand } from './sign-trust-remove.ts';

export function trustCommand(): Command {
  const command = new Command('trust')
    .description('write and show DsvTrustedKeysFile: the keys that may sign manifests')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
The file belongs on the clients: copy it there without using the server.

Example:
  webjobctl sign trust list trusted.keys

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
  for (const make of [addCommand, removeCommand, listCommand]) command.addCommand(make());
  return command;
}
