// webjobctl note: records an operator's note on a job.
import { Command } from 'commander';
import { isJobId } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { printJson, say } from '../../cli/output.ts';
import { addNote, parseNote } from '../acts/note.ts';
import { findJob } from '../jobs/lookup.ts';
import { clientOption } from '../site/client-option.ts';
import { globalOptions, openSite } from '../site/site.ts';

const EXPLANATION = `
A note is one line of text. The custody record keeps it with its author and time, so it cannot be changed or
removed; show, the report, the view and packages of evidence show it.

Example:
  webjobctl note server_1_1085355126_00723 'the disk was replaced the day before'

Exit codes:
  0  recorded
  1  there is no such job
  2  wrong command line, several jobs that match, or a job without an id
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written`;

export function noteCommand(): Command {
  return new Command('note')
    .description('record a note on a job')
    .argument('<JOB>', 'job id, or its beginning or end')
    .argument('<TEXT>', 'one line of text')
    .addOption(clientOption('the client, if several sent the same job id'))
    .addHelpText('after', EXPLANATION)
    .action(async (jid: string, text: string, options: { client?: string }, command: Command) => {
      const site = openSite(command);
      const line = parseNote(text);
      const { job } = await findJob([site], jid, options.client);
      if (job.jobId === undefined || !isJobId(job.jobId))
        throw new Failure('usage', 'a note needs a job with an id of the server');
      const note = addNote(site.settings, job.jobId, line);
      say(`a note on ${note.job} is on record`);
      if (globalOptions(command).json) printJson(note);
    });
}
