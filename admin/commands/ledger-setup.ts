// webjobctl ledger setup: makes the tables of the database of many sites, and grants rights to
// roles.
import { Command, InvalidArgumentError } from 'commander';
import { printJson, say } from '../../cli/output.ts';
import { withLedger } from '../site/ledger.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  to: string;
  writer?: string;
  reader?: string;
}

const EXPLANATION = `
Makes the schema webjob in a database, or brings that of an earlier webjobctl up to date, in one transaction. It can be
run again at any time. The user who runs it owns the tables. A missing role is created without login: an administrator
of the database allows logins with ALTER ROLE, or grants the role to a user. A writer may push; a reader may only query.

Example:
  createdb webjob
  webjobctl ledger setup --to postgresql:///webjob --writer webjob_push --reader webjob_read

Exit codes:
  0  done
  2  wrong command line
  4  the database failed`;

export function setupCommand(): Command {
  return new Command('setup')
    .description('make the tables, or bring them up to date')
    .requiredOption('--to <URL>', 'the database, as psql takes it, without a password')
    .option('--writer <ROLE>', 'the role that may push', parseRole)
    .option('--reader <ROLE>', 'the role that may only query', parseRole)
    .addHelpText('after', EXPLANATION)
    .action(async ({ to, writer, reader }: Options, command: Command) => {
      const { setUp } = await import('../../ledger/postgres/setup.ts');
      const done = await withLedger(to, async (client) => await setUp(client, { writer, reader }), false);
      if (globalOptions(command).json) printJson(done);
      else {
        say(
          done.from === done.to
            ? `the tables already have version ${done.to}`
            : `the tables were updated from version ${done.from} to ${done.to}`,
        );
        for (const role of done.made) say(`role ${role} was created; it cannot log in yet`);
      }
    });
}

function parseRole(text: string): string {
  if (text === '' || Buffer.byteLength(text) > 63 || /[\0-\x1f]/.test(text))
    throw new InvalidArgumentError('the name of a role is 1 to 63 bytes of text.');
  return text;
}
