// webjobctl ledger: keeps the jobs of many sites in one PostgreSQL database.
import { Command } from 'commander';
import { forgetCommand } from './ledger-forget.ts';
import { listCommand } from './ledger-list.ts';
import { pushCommand } from './ledger-push.ts';
import { setupCommand } from './ledger-setup.ts';

export function ledgerCommand(): Command {
  return new Command('ledger')
    .description('keep the jobs of many sites in one PostgreSQL database')
    .helpCommand(false)
    .addCommand(setupCommand())
    .addCommand(pushCommand())
    .addCommand(listCommand())
    .addCommand(forgetCommand())
    .addHelpText(
      'after',
      `
The password of the database is read as psql reads it: from ~/.pgpass, the file that PGPASSFILE names, or PGPASSWORD.

Examples:
  webjobctl ledger setup --to postgresql:///webjob --writer webjob_push --reader webjob_read
  webjobctl ledger push --to 'postgresql://webjob_push@db.example.org/webjob?sslmode=verify-full' --as berlin
  webjobctl --ledger 'postgresql://webjob_read@db.example.org/webjob' jobs --state failed --since 24h

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
}
