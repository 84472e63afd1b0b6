// webjobctl ledger list: lists the sites in a database, and when each last pushed.
import { Command } from 'commander';
import { formatTime } from 'webjob-protocol';
import { EXIT_CODES } from '../../cli/failure.ts';
import { formatTable, printJson, printLines, safeLine } from '../../cli/output.ts';
import type { TellingSite } from '../../ledger/postgres/push.ts';
import { withLedger } from '../site/ledger.ts';
import { globalOptions } from '../site/site.ts';

const EXPLANATION = `
Example:
  webjobctl ledger list --to postgresql://webjob_read@db.example.org/webjob

Exit codes: 0 there are sites, 1 there is none, 2 wrong command line, 4 the database failed`;

export function listCommand(): Command {
  return new Command('list')
    .description('list the sites that push to the database')
    .requiredOption('--to <URL>', 'the database, as psql takes it, without a password')
    .addHelpText('after', EXPLANATION)
    .action(async ({ to }: { to: string }, command: Command) => {
      const { listSites } = await import('../../ledger/postgres/push.ts');
      const sites = await withLedger(to, listSites);
      if (globalOptions(command).json) for (const site of sites) printJson(siteJson(site));
      else if (sites.length > 0) printLines(formatTable(sites, COLUMNS));
      if (sites.length === 0) process.exitCode = EXIT_CODES.findings;
    });
}

const COLUMNS = [
  { title: 'SITE', value: ({ name }: TellingSite) => safeLine(name) },
  {
    title: 'LAST PUSH (UTC)',
    value: ({ toldAt, isComplete }: TellingSite) =>
      (toldAt ? formatTime(toldAt, true) : 'never') + (isComplete ? '' : ' not yet all'),
  },
  { title: 'WHERE', value: ({ host, baseDirectory }: TellingSite) => safeLine(`${host}:${baseDirectory}`) },
];

function siteJson({ name, host, baseDirectory, toldAt, isComplete }: TellingSite): Record<string, unknown> {
  return { site: name, host, baseDirectory, pushedAt: toldAt?.toISOString() ?? null, complete: isComplete };
}
