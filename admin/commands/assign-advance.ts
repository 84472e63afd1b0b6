// webjobctl assign advance: moves rollouts to their next stage, or stops them. For cron.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { type Context, type ContextOptions, openContext, userFileOption } from '../clients/context.ts';
import { type Step, stepRollouts } from '../fleet/rollout.ts';
import { openSite } from '../site/site.ts';

const EXPLANATION = `
A stage is over when each of its clients has a result, or, with --stage-time, after that time when some have.
When more of the results are bad (failed or lost) than --stop-at-failure-rate allows, the assignment is paused: no
other client gets it until "assign resume". Later stages wait until this command opens them.

Example:
  */5 * * * * root  webjobctl assign advance

Exit codes:
  0  done, also when there was nothing to do
  1  a rollout was stopped
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written`;

export function advanceCommand(): Command {
  return new Command('advance')
    .description('open the next stage of rollouts, or pause those that fail; for cron')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((_options: ContextOptions, command: Command) => advance(command, openContext(command)));
}

async function advance(command: Command, context: Context): Promise<void> {
  for (const step of await stepRollouts(openSite(command), context)) {
    if (step.kind === 'stopped') process.exitCode = EXIT_CODES.findings;
    if (context.isJson)
      printJson({ assignment: step.id, step: step.kind, stage: step.stage + 1, bad: step.bad, results: step.results });
    else printLine(describe(step));
  }
}

function describe({ id, kind, stage, bad, results }: Step): string {
  const what = `${bad} of ${results} results are bad`;
  return kind === 'stopped'
    ? `assignment ${id} is stopped in stage ${stage + 1}: ${what}`
    : `assignment ${id}: stage ${stage + 1} is open (${what})`;
}
