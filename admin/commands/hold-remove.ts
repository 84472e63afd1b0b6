// webjobctl hold remove: ends a hold.
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

export function removeCommand(): Command {
  return addHoldOptions(new Command('remove').description('end a hold'))
    .addHelpText('after', HOLD_EXPLANATION)
    .action(async (options: HoldOptions, command: Command) => remove(command, options));
}

/** On record before it is gone: a kill between the two leaves too much held, never too little. */
async function remove(command: Command, options: HoldOptions): Promise<void> {
  const { settings } = openSite(command);
  const ended = parseHold(options);
  const { kind, id, reason } = ended;
  const isEnded = await changeHolds(settings, (holds) => {
    const others = holds.filter((hold) => hold.kind !== kind || hold.id !== id);
    const isThere = others.length < holds.length;
    if (isThere) {
      recordEvent(settings, { event: 'release', kind, id, reason });
      writeHolds(settings, others);
    }
    say(isThere ? `${kind} ${id} is on hold no longer` : `${kind} ${id} is not on hold`);
    return isThere;
  });
  if (isEnded && globalOptions(command).json) printJson(ended);
}
