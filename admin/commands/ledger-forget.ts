// webjobctl ledger forget: removes a site from the database of many sites.
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { printJson, say } from '../../cli/output.ts';
import { withLedger } from '../site/ledger.ts';
import { globalOptions } from '../site/site.ts';

const EXPLANATION = `
The files of the site are not touched, and the next push sends everything again.

Example:
  webjobctl ledger forget berlin --to postgresql://webjob_push@db.example.org/webjob

Exit codes: 0 done, 1 there is no such site, 2 wrong command line, 4 the database failed`;

export function forgetCommand(): Command {
  return new Command('forget')
    .description('remove a site from the database')
    .argument('<NAME>', 'the name of the site in the database')
    .requiredOption('--to <URL>', 'the database, as psql takes it, without a password')
    .addHelpText('after', EXPLANATION)
    .action(async (name: string, { to }: { to: string }, command: Command) => {
      const { forget } = await import('../../ledger/postgres/push.ts');
      if (!(await withLedger(to, async (client) => await forget(client, name))))
        throw new Failure('findings', `the database has no site ${name}`, 'webjobctl ledger list --to URL');
      if (globalOptions(command).json) printJson({ site: name, forgotten: true });
      else say(`removed ${name}`);
    });
}
