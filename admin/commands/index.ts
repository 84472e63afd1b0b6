// webjobctl index: makes or refreshes the database that jobs, search and clients use while it is
// fresh.
import { dirname } from 'node:path';
import { Command, Option } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { Failure } from '../../cli/failure.ts';
import { requireRootsOwn } from '../../cli/files.ts';
import { printJson, say, startProgress } from '../../cli/output.ts';
import { parseSize } from '../../cli/sizes.ts';
import { countJobs } from '../../ledger/jobs.ts';
import { fillStore, storeFile } from '../../ledger/store.ts';
import { indexTexts, MAX_TEXT_BYTES } from '../../ledger/texts.ts';
import { readLocker } from '../../ledger/writer.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

interface Options {
  database?: string;
  maxText: number;
  rebuild?: true;
  check?: true;
}

const EXPLANATION = `
The index is an SQLite database, index/webjob.sqlite below BaseDirectory, with all jobs and the trigrams of their
output. Once it exists, every command that reads jobs updates and queries it. It contains nothing that the logs and the
locker do not contain, and may be removed at any time. Run index from cron as well: it looks at every upload again, and
so finds files that were changed by hand; with more than 20,000 uploads once a day, or with --check.

Examples:
  webjobctl index
  webjobctl index --database /root/webjob.sqlite && sqlite3 /root/webjob.sqlite 'SELECT state, count(*) FROM jobs GROUP BY state'

Exit codes:
  0  done
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log, the locker or the database cannot be read or written`;

export function indexCommand(): Command {
  return new Command('index')
    .description('make the index, or check it against the locker')
    .option('--database <FILE>', 'another file, which other commands do not use')
    .addOption(
      new Option('--max-text <SIZE>', 'index this much of each stream; search reads the rest itself')
        .argParser(parseSize)
        .default(MAX_TEXT_BYTES, '256 KiB'),
    )
    .option('--rebuild', 'make the index again')
    .option('--check', 'check every upload again now')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) => index(openSite(command), options, globalOptions(command)));
}

async function index(site: Site, options: Options, { json }: { json?: true }): Promise<void> {
  const path = options.database ?? storeFile(site);
  const started = performance.now();
  const progress = startProgress('lines and uploads');
  const done = await withSiteLock(site.settings, 'index', async () => {
    if (options.database === undefined) requireRootsOwn(dirname(path));
    try {
      return await fill(path, site, options, () => progress.advance());
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      // SQLite's message does not name the file.
      if (code === 'ERR_SQLITE_ERROR') throw new Failure('failed', `${path}: ${message}`, undefined, { cause: error });
      throw error;
    }
  });
  progress.end();
  const seconds = Math.round(performance.now() - started) / 1000;
  if (json) printJson({ database: path, ...done, seconds });
  else
    say(
      `${path}: ${countOf(done.jobs, 'job')}, ${countOf(done.groups, 'upload')}, ${done.read} read, ${done.removed} removed, ${seconds} s`,
    );
}

interface Filled {
  jobs: number;
  /** The number of uploads in the locker. */
  groups: number;
  /** The number of uploads whose texts were read. */
  read: number;
  removed: number;
}

async function fill(path: string, site: Site, options: Options, advance: () => void): Promise<Filled> {
  const { database, refreshed, close } = await fillStore(path, site, options, { advance });
  try {
    const read = indexTexts(database, site.settings.incomingDirectory, options.maxText, advance);
    const { complete, incomplete } = readLocker(database);
    const { texts, removed } = refreshed;
    return { jobs: countJobs(database), groups: complete + incomplete, read: texts + read, removed };
  } finally {
    close();
  }
}
