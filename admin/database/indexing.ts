// webjobctl index: makes or refreshes the database that jobs, search and clients ask while it is fresh.
import { Command } from 'commander';
import { Failure } from '../failure.ts';
import { parseSize } from '../keep/sizes.ts';
import { inTurn } from '../keep/turn.ts';
import { printJson, say, startProgress } from '../output.ts';
import { globalOptions, openSite, type Site } from '../site.ts';
import { type Refreshed, refreshIndex } from './refresh.ts';
import { indexFile, openToFill } from './schema.ts';

interface Options {
  database?: string;
  maxText: number;
  rebuild?: true;
}

const EXPLANATION = `
The index is an SQLite database, index/webjob.sqlite below BaseDirectory: a table of all jobs, and the trigrams of what clients sent. It
holds nothing that the log and the locker do not hold, and may be removed at any time. Only what changed is read again; run it from cron.
It is fresh until a line is added to the log, or a file to the locker; after that search still uses it for the uploads that are as they
were.

Example:
  webjobctl index
  webjobctl index --database /root/webjob.sqlite && sqlite3 /root/webjob.sqlite 'SELECT state, count(*) FROM jobs GROUP BY state'

Exit codes: 0 done, 2 wrong command line, 3 wrong settings, 4 the log, the locker or the database cannot be read or written`;

export function indexCommand(): Command {
  return new Command('index')
    .description('make or refresh the index that jobs, search and clients use')
    .option('--database <file>', 'another file, which they do not look at')
    .option('--max-text <size>', 'so much of a stream is indexed; search reads the rest itself', parseSize, 262_144)
    .option('--rebuild', 'make it anew')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) => index(openSite(command), options, globalOptions(command)));
}

async function index(site: Site, options: Options, { json }: { json?: true }): Promise<void> {
  const path = options.database ?? indexFile(site.settings);
  const started = performance.now();
  const progress = startProgress('groups');
  const done = await inTurn(site.settings, 'index', async () => {
    try {
      return await fill(path, site, options, () => progress.advance());
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      // SQLite does not say of which file it speaks.
      if (code === 'ERR_SQLITE_ERROR') throw new Failure('failed', `${path}: ${message}`, undefined, { cause: error });
      throw error;
    }
  });
  progress.end();
  const seconds = Math.round(performance.now() - started) / 1000;
  if (json) printJson({ database: path, ...done, seconds });
  else say(`${path}: ${done.jobs} jobs, ${done.groups} groups, ${done.read} read, ${done.removed} gone, ${seconds} s`);
}

async function fill(path: string, site: Site, options: Options, advance: () => void): Promise<Refreshed> {
  const database = openToFill(path, options.rebuild === true);
  try {
    return await refreshIndex(database, site, options.maxText, advance);
  } finally {
    database.close();
  }
}
