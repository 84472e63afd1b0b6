// webjobctl client: manages the clients of a site, from the first password to the last revocation.
import { Command } from 'commander';
import { addCommand } from './client-add.ts';
import { listCommand } from './client-list.ts';
import { passwdCommand } from './client-passwd.ts';
import { removeCommand } from './client-remove.ts';
import { renewCommand } from './client-renew.ts';
import { resultKeyCommand } from './client-result-key.ts';
import { showCommand } from './client-show.ts';

const EXPLANATION = `
Examples:
  webjobctl client add client1 --generate
  webjobctl client list --expiring 30d

Exit codes: those of webjobctl; each command's own are in its help.`;

export function clientCommand(): Command {
  const command = new Command('client')
    .description('add clients, list them, change their passwords, renew their certificates, remove them')
    .helpCommand(false)
    .addHelpText('after', EXPLANATION);
  const commands = [addCommand, listCommand, showCommand, passwdCommand, renewCommand, resultKeyCommand, removeCommand];
  for (const make of commands) command.addCommand(make());
  return command;
}
