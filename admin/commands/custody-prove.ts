// webjobctl custody prove: proves that the custody record contained the entries of a job when a
// checkpoint was made.
import { Command } from 'commander';
import { findJobIdParts } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { findEntries } from '../../evidence/entries.ts';
import { findJob } from '../jobs/lookup.ts';
import { clientOption } from '../site/client-option.ts';
import { readCheckpointFile, readCheckpoints, recordsOf } from '../site/logs.ts';
import { proveEntries } from '../site/proofs.ts';
import { globalOptions, openSites, type Site } from '../site/site.ts';

interface Options {
  checkpoint?: string;
  client?: string;
}

const EXPLANATION = `
Prints a proof (c2sp.org/tlog-proof) for each record of the job's deposits: the record, its number, the path to the
root of the tree, and the newest checkpoint that was kept. Anyone with the public key can check it: webjobctl custody
check, or any other tool for such proofs. Of other jobs it contains only hashes.

Examples:
  webjobctl custody prove server_1_1085355126_00723 > job.tlog-proof
  webjobctl custody prove 00723 --checkpoint /mnt/elsewhere/checkpoints

Exit codes:
  0  printed
  1  no such job, or no checkpoint covers its record
  2  wrong command line, or several jobs that match
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read`;

export function proveCommand(): Command {
  return new Command('prove')
    .description('prove that a job is in a signed custody record')
    .argument('<JOB>', 'job id, or its beginning or end')
    .option('--checkpoint <FILE>', 'use the newest checkpoint in this file instead of the newest stored one')
    .addOption(clientOption('the client, if several sent the same job id'))
    .addHelpText('after', EXPLANATION)
    .action((jid: string, options: Options, command: Command) =>
      run(openSites(command), jid, options, globalOptions(command).json === true),
    );
}

async function run(sites: readonly Site[], jid: string, options: Options, isJson: boolean): Promise<void> {
  const { site, job } = await findJob(sites, jid, options.client);
  const { jobId } = job;
  if (jobId === undefined) throw new Failure('nothing', 'the job has no id, by which its record could be found');
  const issued = findJobIdParts(jobId)?.epochSeconds;
  let [isFound, isCovered] = [false, false];
  for (const [serverId, files] of recordsOf(site.settings)) {
    const entries = findEntries(site.settings.logfilesDirectory, files, jobId, (issued ?? 0) * 1000);
    if (entries.length === 0) continue;
    isFound = true;
    const { checkpoint: path } = options;
    const kept = path === undefined ? readCheckpoints(site.settings, serverId) : readCheckpointFile(path);
    for (const proof of proveEntries(site.settings, serverId, entries, kept.toReversed())) {
      isCovered = true;
      const { origin, size, index, entry, text } = proof;
      if (isJson) printJson({ jobId, origin, size, index, entry: entry.text.toString('latin1'), proof: text });
      else printLine(text.slice(0, -1));
    }
  }
  if (!isFound)
    throw new Failure('findings', `no custody record in ${site.settings.logfilesDirectory} mentions ${jobId}`);
  if (!isCovered)
    throw new Failure(
      'findings',
      `no checkpoint covers the record of ${jobId}`,
      'webjobctl custody checkpoint makes one',
    );
}
