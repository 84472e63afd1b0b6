// webjobctl custody: root's commands for the custody record.
import { Command } from 'commander';
import { adoptCommand } from './custody-adopt.ts';
import { checkCommand } from './custody-check.ts';
import { checkpointCommand } from './custody-checkpoint.ts';
import { consistencyCommand } from './custody-consistency.ts';
import { proveCommand } from './custody-prove.ts';
import { timestampCommand } from './custody-timestamp.ts';

export function custodyCommand(): Command {
  return new Command('custody')
    .description('sign, time-stamp, prove and check the custody record')
    .helpCommand(false)
    .addCommand(checkpointCommand())
    .addCommand(timestampCommand())
    .addCommand(proveCommand())
    .addCommand(consistencyCommand())
    .addCommand(checkCommand())
    .addCommand(adoptCommand())
    .addHelpText(
      'after',
      `
Examples:
  webjobctl custody checkpoint --key /root/custody.key >> /mnt/elsewhere/checkpoints
  webjobctl custody prove 00723 > job.tlog-proof
  webjobctl custody check job.tlog-proof --key custody.pub
  webjobctl custody adopt --reason 'uploads of the server before this one'

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
}
