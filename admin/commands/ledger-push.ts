// webjobctl ledger push: pushes the changes of a site to the database of many sites.
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { requireRootsOwn } from '../../cli/files.ts';
import { printJson, say, startProgress } from '../../cli/output.ts';
import type { Pushed } from '../../ledger/postgres/push.ts';
import { fillStore, storeFile } from '../../ledger/store.ts';
import { withLedger } from '../site/ledger.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

interface Options {
  to: string;
  as: string;
}

const EXPLANATION = `
Updates the index of the site, or makes it, and sends the database every job that is new or changed since the last push:
each exactly once, even if this command, the network or the database fails in between. The first push sends everything, and
so does the next one after webjobctl index --rebuild, or after the database was restored from a backup.

A site pushes to one database, under the name of the machine unless --as gives another name. Output stays in the locker.

Example, every minute from cron:
  webjobctl ledger push --to 'postgresql://webjob_push@db.example.org/webjob?sslmode=verify-full' --as berlin

Exit codes:
  0  done
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read, or the database failed`;

export function pushCommand(): Command {
  return new Command('push')
    .description('push the changes of this site to the database')
    .requiredOption('--to <URL>', 'the database, as psql takes it, without a password')
    .option('--as <NAME>', 'the name of the site in the database', parseName, hostname())
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) => {
      const started = performance.now();
      const pushed = await push(openSite(command), options);
      const seconds = Math.round(performance.now() - started) / 1000;
      if (globalOptions(command).json) printJson({ site: options.as, ...pushed, seconds });
      else
        say(
          `${options.as}: pushed ${countOf(pushed.jobs, 'job')} and ${countOf(pushed.clients, 'client')}, ${seconds} s`,
        );
    });
}

async function push(site: Site, { to, as: name }: Options): Promise<Pushed> {
  const path = storeFile(site);
  const progress = startProgress('jobs');
  const { push: tell } = await import('../../ledger/postgres/push.ts');
  try {
    // One push at a time, to whichever database, because pushed changes are removed from the queue.
    return await withSiteLock(site.settings, 'ledger', async () => await tellSite());
  } finally {
    progress.end();
  }

  async function tellSite(): Promise<Pushed> {
    // Connects before the site is read, so that an unreachable database is reported at once.
    return await withLedger(to, async (client) => {
      const store = await withSiteLock(site.settings, 'index', async () => {
        requireRootsOwn(dirname(path));
        return await fillStore(path, site, {});
      });
      try {
        return await tell(store.database, { client, name, site }, progress.advance);
      } finally {
        store.close();
      }
    });
  }
}

function parseName(text: string): string {
  if (!/^[\p{L}\p{N}][\p{L}\p{N} ._:/-]{0,63}$/u.test(text))
    throw new InvalidArgumentError('a name is up to 64 letters, digits, blanks and . _ : / -');
  return text;
}
