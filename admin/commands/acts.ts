// webjobctl acts: carries out the acts that users of webjob-view requested.
import { Command } from 'commander';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { printJson, safeLine, say, warn } from '../../cli/output.ts';
import { openAnswers, readAnswer, removeOldAnswers, writeAnswer } from '../acts/answers.ts';
import { carryOut } from '../acts/carry-out.ts';
import { type Asked, openInbox } from '../acts/inbox.ts';
import { isStatusDue, leaveStatus } from '../acts/leave-status.ts';
import { ACT_NAMES, type ActAnswer, actFolders, subjectOf } from '../acts/request.ts';
import { readKeys } from '../bag/proofs.ts';
import { openContext } from '../clients/context.ts';
import { globalOptions, openSite } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

declare const WEBJOB_VERSION: string;

interface Options {
  allow?: string;
  key?: string[];
  ca?: string;
  trusted?: string;
}

const EXPLANATION = `
webjob-view cannot write to the locker. It puts requested acts into the inbox, config/webjob-acts/inbox below BaseDirectory.
This command carries them out, each with the code of the command of that name, and writes the answers to
config/webjob-acts/answers. There it also writes facts that the view shows but only root may read: certificates, missed
expectations, assignments. systemd runs the command when something is in the inbox (webjob-acts.path), or cron runs it
every minute. Answers and packages are removed after a day.

Example:
  webjobctl acts --allow verify,note,hold --key custody.pub

Exit codes:
  0  all is done, or there was nothing to do
  1  an act failed: its answer says why
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the inbox is missing or not safe, or another webjobctl is running`;

export function actsCommand(): Command {
  return new Command('acts')
    .description('carry out what users of webjob-view requested')
    .option('--allow <ACTS>', `only these acts, separated by commas (default: ${ACT_NAMES.join(',')})`)
    .option('--key <FILE>', 'for packages: the public key of the checkpoints; may be repeated', collect)
    .option('--ca <FILE>', "for packages: the certificate of the time stamps' CA, in PEM")
    .option('--trusted <FILE>', 'for packages: the keys that sign programs')
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) => act(command, options));
}

function collect(value: string, values: string[] = []): string[] {
  return [...values, value];
}

async function act(command: Command, options: Options): Promise<void> {
  const site = openSite(command);
  const allowed = (options.allow ?? ACT_NAMES.join(',')).split(',');
  const unknown = allowed.find((name) => !(ACT_NAMES as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new Failure('usage', `--allow: unknown act ${unknown}`, `acts are ${ACT_NAMES.join(', ')}`);
  const keys = readKeys(options);
  const isJson = globalOptions(command).json === true;
  const { inbox: path, answers } = actFolders(site.settings);
  const inbox = openInbox(path, site.settings.incomingDirectory);
  try {
    await withSiteLock(site.settings, 'acts', async () => {
      openAnswers(answers, inbox.owner);
      removeOldAnswers(answers, Date.now());
      const isChanged = await answerAll();
      if (!isChanged && !isStatusDue(answers, Date.now())) return;
      try {
        await leaveStatus({ site, context: openContext(command), answers, reader: inbox.owner });
      } finally {
        // Requests that arrived meanwhile have not started another run, because this run holds the
        // lock.
        await answerAll();
      }
    });
  } finally {
    inbox.close();
  }

  /** Answers requests until none is left. Returns whether an assignment was changed. */
  async function answerAll(): Promise<boolean> {
    const place = { site, answers, reader: inbox.owner, keys, version: WEBJOB_VERSION };
    let isChanged = false;
    for (let asked = inbox.read(Date.now(), warn); asked.length > 0; asked = inbox.read(Date.now(), warn))
      for (const one of asked) {
        const known = readAnswer(answers, one.id);
        const answer = known ? afterKill(known) : await answerOne(one, allowed, place);
        if (answer) tell(answer, isJson);
        isChanged ||= answer?.state === 'done' && answer.assignment !== undefined;
        inbox.remove(one.id);
      }
    return isChanged;
  }

  /**
   * A repeated request is carried out once. One that a kill interrupted is not tried again, because
   * a part of it may be done.
   */
  function afterKill(known: ActAnswer): ActAnswer | undefined {
    if (known.state !== 'started') return undefined;
    const failed = {
      ...known,
      state: 'failed',
      words: 'interrupted: the custody record says whether it was done',
    } as const;
    writeAnswer(answers, failed, inbox.owner);
    return failed;
  }
}

async function answerOne(
  { id, at, request }: Asked,
  allowed: readonly string[],
  place: Parameters<typeof carryOut>[2],
): Promise<ActAnswer> {
  const answer = (state: ActAnswer['state'], words: string): ActAnswer => {
    const times = { askedAt: at.toISOString(), answeredAt: new Date().toISOString() };
    const made: ActAnswer = { id, ...request, ...times, state, words };
    writeAnswer(place.answers, made, place.reader);
    return made;
  };
  if (!allowed.includes(request.act)) return answer('failed', 'not allowed at this site');
  answer('started', 'being done');
  try {
    return answer('done', await carryOut(id, request, place));
  } catch (error) {
    const { syscall, message } = error as NodeJS.ErrnoException;
    if (error instanceof Failure) return answer('failed', error.message);
    if (syscall === undefined) throw error;
    // Only the server's own log may contain its paths.
    warn(`${id}: ${message}`);
    return answer('failed', errorCode(error));
  }
}

function tell(answer: ActAnswer, isJson: boolean): void {
  const { id, act, job = null, assignment = null, user, state, words } = answer;
  if (state === 'failed') process.exitCode = EXIT_CODES.findings;
  if (isJson) printJson({ id, act, job, assignment, user, state, words });
  else say(safeLine(`${act} of ${subjectOf(answer)} for ${user}: ${state}: ${words}`));
}
