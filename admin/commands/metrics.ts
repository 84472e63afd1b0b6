// webjobctl metrics: prints metrics of a site for Prometheus.
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode, replaceFile } from '../../cli/files.ts';
import { printJson } from '../../cli/output.ts';
import { readGroups } from '../../ledger/groups.ts';
import { readMeasures } from '../../ledger/jobs.ts';
import { openContext } from '../clients/context.ts';
import { readBook } from '../fleet/assignments.ts';
import { findTargets, listClientIds } from '../fleet/clients.ts';
import { findMissed, readRules } from '../fleet/expectations.ts';
import { readProgress } from '../fleet/states.ts';
import { type Family, formatFamilies } from '../metrics/exposition.ts';
import {
  gauge,
  MAX_ASSIGNMENTS,
  MAX_CLIENTS,
  measureActs,
  measureAssignments,
  measureCheckpoints,
  measureExpectations,
  measureJobs,
  measureLocker,
  measureLog,
} from '../metrics/measure.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';

declare const WEBJOB_VERSION: string;

const EXPLANATION = `
Writes the text format of Prometheus, for the textfile collector of node_exporter. FILE is replaced in one step, so the
collector never reads an incomplete one; - is standard output. Jobs are counted by state, requests by method and status,
and each client has the time of its last successful request. Every series has a label site, so that several sites on
one machine, each with its own file, stay apart.

Example, every five minutes from cron:
  webjobctl metrics --textfile /var/lib/node_exporter/webjob.prom

Exit codes:
  0  written
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read, or FILE cannot be written`;

export function metricsCommand(): Command {
  return new Command('metrics')
    .description('write metrics for Prometheus')
    .requiredOption('--textfile <FILE>', 'the file to make or replace; - for stdout')
    .option('--site <NAME>', 'the value of the label site (default: BaseDirectory)')
    .addHelpText('after', EXPLANATION)
    .action(async (_, command: Command) => await run(command));
}

async function run(command: Command): Promise<void> {
  const site = openSite(command);
  const options = command.opts<{ textfile: string; site?: string }>();
  const { textfile } = options;
  const isJson = globalOptions(command).json === true;
  const path = textfile === '-' ? undefined : checkPlace(textfile);
  const families = labelSite(await measure(site, command), options.site ?? site.settings.baseDirectory);
  const text = formatFamilies(families);
  if (path !== undefined) write(path, text);
  if (isJson) for (const { name, samples } of families) for (const sample of samples) printJson({ name, ...sample });
  else if (path === undefined) process.stdout.write(text);
}

/**
 * Adds a label with the site, because the series of several sites on one machine have the same
 * names.
 */
function labelSite(families: readonly Family[], site: string): Family[] {
  return families.map((family) => {
    return { ...family, samples: family.samples.map(({ labels, value }) => ({ labels: { site, ...labels }, value })) };
  });
}

function write(path: string, text: string): void {
  try {
    replaceFile(path, text, { mode: 0o644 });
  } catch (error) {
    throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`, undefined, { cause: error });
  }
}

async function measureMissed(site: Site, command: Command): Promise<Family[]> {
  const { expectations = [] } = readRules(site.settings) ?? {};
  if (expectations.length === 0) return [];
  const clientIds = listClientIds(openContext(command));
  const missed = await findMissed(site, expectations, readGroups(site.settings), clientIds);
  return measureExpectations(
    expectations.map((one) => one.command),
    missed,
  );
}

async function measureFleet(site: Site, command: Command): Promise<Family[]> {
  const book = readBook(site.settings);
  if (book.active.length === 0) return [];
  const [groups, clientIds] = [readGroups(site.settings), listClientIds(openContext(command))];
  const rows = [];
  for (const assignment of book.active.slice(-MAX_ASSIGNMENTS)) {
    const { counts } = await readProgress(site, book, assignment, findTargets(assignment, groups, clientIds));
    rows.push({ assignment, states: counts });
  }
  return measureAssignments(rows);
}

async function measure(site: Site, command: Command): Promise<Family[]> {
  const startedAt = Date.now();
  try {
    const measures = await readMeasures(site, MAX_CLIENTS);
    const families = [
      ...measureJobs(measures),
      ...measureLocker(site, measures),
      ...measureLog(site),
      ...measureCheckpoints(site),
      ...(await measureFleet(site, command)),
      ...(await measureMissed(site, command)),
      ...measureActs(site),
    ];
    return [
      ...families,
      gauge('webjob_info', 'Always 1; the label is the version of webjobctl.', [
        { labels: { version: WEBJOB_VERSION, server_id: site.settings.serverId }, value: 1 },
      ]),
      gauge('webjob_metrics_timestamp_seconds', 'Time of the measurement.', [{ value: startedAt / 1000 }]),
      gauge('webjob_metrics_duration_seconds', 'Duration of the measurement.', [
        { value: (Date.now() - startedAt) / 1000 },
      ]),
    ];
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof Failure || code === undefined) throw error;
    throw new Failure('failed', message, undefined, { cause: error });
  }
}

/** The file with its directory resolved. Throws Failure when the directory does not exist. */
function checkPlace(given: string): string {
  const path = resolve(given);
  try {
    return join(realpathSync(dirname(path)), basename(path));
  } catch (error) {
    throw new Failure('failed', (error as Error).message, undefined, { cause: error });
  }
}
