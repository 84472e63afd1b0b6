// webjobctl verify: checks the stored evidence.
import { existsSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import { walkLocker } from 'webjob-locker';
import { countOf } from '../../cli/counts.ts';
import { parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { formatBytes, printJson, printLine, safeLine, say, startProgress } from '../../cli/output.ts';
import { compareCheckpoints, readCheckingKey } from '../../evidence/checkpoint.ts';
import { readCosigners } from '../../evidence/cosigners.ts';
import type { EvidenceSite } from '../../evidence/evidence.ts';
import type { Finding } from '../../evidence/finding.ts';
import { verifyJournal } from '../../evidence/journal.ts';
import { ResultKeys } from '../../evidence/result-keys.ts';
import { type Scope, type Summary, verifyJob, verifySite } from '../../evidence/verify.ts';
import { describeWitness, joinSites, tellWitness } from '../site/evidence.ts';
import { globalOptions, openSites } from '../site/site.ts';

interface Options {
  since?: Date;
  touched?: Date;
  sample?: number;
  seed: string;
  custody?: true;
  checkpoint?: string;
  key?: string;
  witnesses?: string;
  resultKeys?: string;
  journal?: string;
}

const EXPLANATION = `
Compares every upload with the run record in its .env and with the custody record: sizes, digests, job ids, missing and
foreign files, access rights, and result signatures. Reads the custody record from its first line. --since reads only
uploads and records that are newer, or that have changed since root last saw them; --touched reads every file whose
change time, which cannot be set back, is newer. Nothing is changed. The server may continue to run: a possible finding
is checked again before it is reported.

Each finding is a line on standard output: a kind, a place, and what is wrong. man webjobctl explains the kinds.

Examples:
  webjobctl verify
  webjobctl verify --since 24h
  webjobctl verify server_1_1085355126_00723
  webjobctl verify --sample 5% --seed "$(date +%F)"
  webjobctl verify --journal client1-journal.jsonl
  webjobctl verify --custody --checkpoint /mnt/elsewhere/checkpoints --key custody.pub

Exit codes:
  0  no findings
  1  findings, or no such job
  2  wrong command line, or several jobs that match
  3  nph-webjob.cfg cannot be used
  4  the locker, a custody record, the checkpoints, the key or the journal cannot be read`;

export function verifyCommand(): Command {
  return new Command('verify')
    .description('check the locker against the custody record')
    .argument('[JOB]', 'only the uploads of this job: job id, or its beginning or end')
    .option(
      '--since <TIME>',
      'only uploads and archives since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h',
      parseInstant,
    )
    .option(
      '--touched <TIME>',
      'only uploads with a file that was written or changed since, in the same form',
      parseInstant,
    )
    .option('--sample <PERCENT>', 'only a sample of the uploads, as in 5%, the same at every run', parsePercent)
    .addOption(new Option('--seed <TEXT>', 'choose another sample').default('', 'none'))
    .option('--custody', 'check only the custody record, names and job ids; read no streams')
    .option('--checkpoint <FILE>', 'compare the custody record with the output of webjobctl custody checkpoint')
    .option('--key <FILE>', 'the public key of the checkpoints')
    .option(
      '--witnesses <FILE>',
      'the witnesses that must have cosigned each checkpoint: a policy, or verifier keys of which one is enough',
    )
    .option('--journal <FILE>', 'check the runs in the journal of a client (JournalFile) against the locker')
    .option('--result-keys <DIRECTORY>', 'a copy of webjob-result-keys that the server cannot change')
    .addHelpText('after', EXPLANATION)
    .action((jid: string | undefined, _, command: Command) => run(command, jid));
}

function parsePercent(text: string): number {
  const percent = /^(?:\d{1,3}|\d{0,2}\.\d{1,6})%$/.test(text) ? Number(text.slice(0, -1)) : 0;
  if (percent <= 0 || percent > 100) throw new InvalidArgumentError('a part is more than 0% and up to 100%.');
  return percent / 100;
}

function run(command: Command, jid: string | undefined): void {
  const options = command.opts<Options>();
  const sites = joinSites(openSites(command)).map((site) => withKeys(site, options.resultKeys));
  if ((options.checkpoint === undefined) !== (options.key === undefined))
    throw new Failure('usage', '--checkpoint and --key must be given together');
  if (options.witnesses !== undefined && options.checkpoint === undefined)
    throw new Failure('usage', '--witnesses requires --checkpoint');
  const { since, touched, sample } = options;
  const picks = [jid, since ?? sample, touched].filter((one) => one !== undefined);
  if ((jid !== undefined && picks.length > 1) || (since && touched))
    throw new Failure('usage', 'a job id, --since and --touched cannot be combined');
  const isJson = globalOptions(command).json === true;
  const report = ({ kind, place, detail }: Finding): void => {
    process.exitCode = EXIT_CODES.findings;
    if (isJson) printJson({ kind, place, detail });
    else printLine(safeLine(`${kind.padEnd(20)} ${place}: ${detail}`));
  };
  if (options.journal !== undefined) {
    const others = [...picks, options.custody, options.checkpoint].filter((one) => one !== undefined);
    if (others.length > 0)
      throw new Failure('usage', '--journal cannot be combined with options that select uploads or records');
    holdJournal(sites, options.journal, report, isJson);
    return;
  }
  if (options.checkpoint !== undefined && options.key !== undefined) {
    const key = readCheckingKey(options.key);
    const folders = sites.flatMap(({ servers }) => servers.map(({ logfilesDirectory }) => logfilesDirectory));
    const cosigners = options.witnesses === undefined ? undefined : readCosigners(options.witnesses);
    for (const finding of compareCheckpoints(options.checkpoint, { key, cosigners }, folders)) report(finding);
  }
  const startedAt = performance.now();
  const summary = addUp(verifyAll(sites, options, jid, report));
  const seconds = (performance.now() - startedAt) / 1000;
  if (isJson) printJson({ kind: 'summary', ...summary, seconds });
  else describe(summary, seconds);
}

/** Compares the journal of a client with the lockers. */
function holdJournal(
  sites: readonly EvidenceSite[],
  path: string,
  report: (finding: Finding) => void,
  isJson: boolean,
): void {
  const findings = verifyJournal(sites, path);
  let step = findings.next();
  for (; !step.done; step = findings.next()) report(step.value);
  const { deliveries, acknowledged, kept, removed, findings: count } = step.value;
  if (isJson) {
    printJson({ kind: 'summary', ...step.value });
    return;
  }
  const found = countOf(count, 'finding');
  say(`${deliveries} deliveries, ${acknowledged} runs acknowledged, ${kept} of them stored unchanged: ${found}`);
  if (removed > 0) say(`${removed} were removed by webjobctl, as the custody record says`);
}

/**
 * Checks signatures by the keys of the site, or of a copy. Throws Failure `failed` for a copy that
 * does not exist.
 */
function withKeys(site: EvidenceSite, copy: string | undefined): EvidenceSite {
  if (copy === undefined) return site;
  if (!existsSync(copy)) throw new Failure('failed', `--result-keys: there is no directory ${copy}`);
  return { ...site, resultKeys: new ResultKeys([copy]) };
}

/** Verifies a job, which is in one of the lockers. */
function verifyAll(
  sites: readonly EvidenceSite[],
  options: Options,
  jid: string | undefined,
  report: (finding: Finding) => void,
): Summary[] {
  let none: Failure | undefined;
  const summaries: Summary[] = [];
  for (const site of sites)
    try {
      summaries.push(verify(site, options, jid, report));
    } catch (error) {
      if (!(error instanceof Failure) || error.kind !== 'findings') throw error;
      none = error;
    }
  if (none && summaries.length === 0) throw none;
  return summaries;
}

function addUp(summaries: readonly Summary[]): Summary {
  const sum = (name: Exclude<keyof Summary, 'witness'>): number =>
    summaries.reduce((total, summary) => total + summary[name], 0);
  const [groups, bytes, findings] = [sum('groups'), sum('bytes'), sum('findings')];
  const states = summaries.map(({ witness }) => witness);
  const witness = states.find((state) => state !== 'asked') ?? 'asked';
  const signatures = { signed: sum('signed'), unsigned: sum('unsigned') };
  return { groups, bytes, findings, inProgress: sum('inProgress'), older: sum('older'), ...signatures, witness };
}

function verify(
  site: EvidenceSite,
  options: Options,
  jid: string | undefined,
  report: (finding: Finding) => void,
): Summary {
  const { since, touched: touchedSince, sample: fraction, seed, custody } = options;
  const isWatched = process.stderr.isTTY === true;
  try {
    const isWhole = [since, touchedSince, fraction, jid].every((one) => one === undefined);
    const total = isWatched && isWhole ? countGroups(site.incomingDirectory) : undefined;
    const progress = startProgress('uploads', total);
    const scope: Scope = {
      ...site,
      since,
      touchedSince,
      contents: custody !== true,
      sample: fraction === undefined ? undefined : { fraction, seed },
      advance: () => progress.advance(),
      tell: (name, { words }) => say(`${safeLine(name)}: ${safeLine(words)}`),
      done: tellWitness,
    };
    const findings = jid === undefined ? verifySite(scope) : verifyJob(scope, jid);
    let step = findings.next();
    for (; !step.done; step = findings.next()) {
      progress.end();
      report(step.value);
    }
    progress.end();
    return step.value;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof Failure || code === undefined) throw error;
    throw new Failure('failed', message, undefined, { cause: error });
  }
}

function countGroups(locker: string): number {
  let count = 0;
  for (const { group } of walkLocker(locker)) if (group) count++;
  return count;
}

function describe(summary: Summary, seconds: number): void {
  const { groups, bytes, findings, inProgress, older, signed, unsigned, witness } = summary;
  const rate = formatBytes(bytes / Math.max(seconds, 0.001));
  const found = countOf(findings, 'finding');
  say(`${countOf(groups, 'upload')}, ${formatBytes(bytes)} in ${seconds.toFixed(1)} s (${rate}/s): ${found}`);
  if (signed > 0) say(`${signed} signed by their clients, ${unsigned} not signed`);
  if (inProgress > 0) say(`${countOf(inProgress, 'upload is', 'uploads are')} being written`);
  if (older > 0) {
    say(`${countOf(older, 'upload is', 'uploads are')} older than the custody record`);
    say('hint: webjobctl custody adopt --reason TEXT');
  }
  const unasked = describeWitness(witness);
  if (unasked !== undefined) say(unasked);
}
