// webjobctl custody: what root says of the custody record.
import { Command } from 'commander';
import { adoptCommand } from './custody-adopt.ts';
import { checkpointCommand } from './custody-checkpoint.ts';

export function custodyCommand(): Command {
  return new Command('custody')
    .description('sign and adopt what the custody record says')
    .helpCommand(false)
    .addCommand(checkpointCommand())
    .addCommand(adoptCommand())
    .addHelpText(
      'after',
      `
Examples:
  webjobctl custody checkpoint --key /root/custody.key >> /mnt/elsewhere/checkpoints
  webjobctl custody adopt --reason 'uploads of the server before this one'

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
}
