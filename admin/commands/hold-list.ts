// webjobctl hold list: lists the holds.
import { Command } from 'commander';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { EXIT_CODES } from '../../cli/failure.ts';
import { formatTable, printJson, printLine } from '../../cli/output.ts';
import { HOLD_EXPLANATION } from '../retention/hold-change.ts';
import { type Hold, readHolds } from '../retention/holds.ts';
import { globalOptions, openSite } from '../site/site.ts';

export function listCommand(): Command {
  return new Command('list')
    .description('list holds')
    .addHelpText('after', HOLD_EXPLANATION)
    .action((_: unknown, command: Command) => list(openSite(command).settings, globalOptions(command).json));
}

function list(settings: ServerSettings, json: true | undefined): void {
  const holds = readHolds(settings);
  if (json) for (const hold of holds) printJson(hold);
  else if (holds.length > 0) {
    const columns = (['kind', 'id', 'at', 'by', 'reason'] as const).map((name) => ({
      title: name.toUpperCase(),
      value: (hold: Hold) => hold[name],
    }));
    for (const line of formatTable(holds, columns)) printLine(line);
  }
  if (holds.length === 0) process.exitCode = EXIT_CODES.findings;
}
