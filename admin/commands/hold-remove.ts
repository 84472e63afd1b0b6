// webjobctl hold remove: ends a hold.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, say } from '../../cli/output.ts';
import { addHoldOptions, endHold, HOLD_EXPLANATION, type HoldOptions, parseHolds } from '../retention/hold-change.ts';
import { globalOptions, openSite } from '../site/site.ts';

export function removeCommand(): Command {
  return addHoldOptions(new Command('remove').description('end a hold'))
    .addHelpText('after', HOLD_EXPLANATION)
    .action(async (options: HoldOptions, command: Command) => remove(command, options));
}

async function remove(command: Command, options: HoldOptions): Promise<void> {
  const { settings } = openSite(command);
  let isAnyThere = false;
  for (const ended of parseHolds(settings, options)) {
    const isThere = await endHold(settings, ended);
    say(`${ended.kind} ${ended.id} is ${isThere ? 'no longer on hold' : 'not on hold'}`);
    if (isThere && globalOptions(command).json) printJson(ended);
    isAnyThere ||= isThere;
  }
  if (!isAnyThere) process.exitCode = EXIT_CODES.findings;
}
