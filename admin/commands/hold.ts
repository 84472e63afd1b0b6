// webjobctl hold: keeps uploads from being removed, with a reason.
import { Command } from 'commander';
import { HOLD_EXPLANATION } from '../retention/hold-change.ts';
import { addCommand } from './hold-add.ts';
import { listCommand } from './hold-list.ts';
import { removeCommand } from './hold-remove.ts';

export function holdCommand(): Command {
  const hold = new Command('hold')
    .description('keep uploads from being removed, by legal holds')
    .helpCommand(false)
    .addHelpText('after', HOLD_EXPLANATION);
  for (const make of [addCommand, removeCommand, listCommand]) hold.addCommand(make());
  return hold;
}
