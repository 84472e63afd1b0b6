// webjobctl hold add: sets a hold, which takes effect immediately, even during a prune.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, say } from '../../cli/output.ts';
import { addHoldOptions, HOLD_EXPLANATION, type HoldOptions, parseHolds, setHold } from '../retention/hold-change.ts';
import { globalOptions, openSite } from '../site/site.ts';

export function addCommand(): Command {
  return addHoldOptions(new Command('add').description('set a hold'))
    .addHelpText('after', HOLD_EXPLANATION)
    .action(async (options: HoldOptions, command: Command) => add(command, options));
}

async function add(command: Command, options: HoldOptions): Promise<void> {
  const { settings } = openSite(command);
  let isAnyNew = false;
  for (const hold of parseHolds(settings, options)) {
    const isNew = await setHold(settings, hold);
    say(`${hold.kind} ${hold.id} is on hold${isNew ? '' : ' already'}`);
    if (isNew && globalOptions(command).json) printJson(hold);
    isAnyNew ||= isNew;
  }
  if (!isAnyNew) process.exitCode = EXIT_CODES.findings;
}
