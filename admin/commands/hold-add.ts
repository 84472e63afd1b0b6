// webjobctl hold add: a hold counts from the moment it is set, also for a prune that is at work.
import { Command } from 'commander';
import { printJson, say } from '../../cli/output.ts';
import { recordEvent } from '../../evidence/events.ts';
import {
  addHoldOptions,
  changeHolds,
  HOLD_EXPLANATION,
  type HoldOptions,
  parseHold,
} from '../retention/hold-change.ts';
import { writeHolds } from '../retention/holds.ts';
import { globalOptions, openSite } from '../site/site.ts';

export function addCommand(): Command {
  return addHoldOptions(new Command('add').description('set a hold'))
    .addHelpText('after', HOLD_EXPLANATION)
    .action(async (options: HoldOptions, command: Command) => add(command, options));
}

/** The hold stands before it is on record: a kill between the two leaves too much held, never too little. */
async function add(command: Command, options: HoldOptions): Promise<void> {
  const { settings } = openSite(command);
  const hold = parseHold(options);
  const { kind, id, reason } = hold;
  const isAdded = await changeHolds(settings, (holds) => {
    const isNew = !holds.some((other) => other.kind === kind && other.id === id);
    if (isNew) {
      writeHolds(settings, [...holds, hold]);
      recordEvent(settings, { event: 'hold', kind, id, reason });
    }
    say(isNew ? `${kind} ${id} is on hold` : `${kind} ${id} is on hold already`);
    return isNew;
  });
  if (isAdded && globalOptions(command).json) printJson(hold);
}
