// webjobctl evidence: makes an evidence package that can be handed over and checked by anyone.
import { Command } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, printLine, safeLine, say, startProgress } from '../../cli/output.ts';
import { completeInfo } from '../bag/info.ts';
import { makePackage } from '../bag/make.ts';
import { readKeys } from '../bag/proofs.ts';
import { selectJobs } from '../bag/select.ts';
import { verifyPackage } from '../bag/verify.ts';
import { identityOption, readIdentities } from '../jobs/sealed.ts';
import { clientOption } from '../site/client-option.ts';
import { findPlace } from '../site/output-path.ts';
import { globalOptions, openSite } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

declare const WEBJOB_VERSION: string;

interface Options {
  out?: string;
  zip?: true;
  client?: string;
  command?: string;
  since?: Date;
  until?: Date;
  case?: string;
  caseNumber?: string;
  examiner?: string;
  description?: string;
  key?: string[];
  ca?: string;
  trusted?: string;
  witnesses?: string;
  identity?: string;
  verify?: string;
}

const EXPLANATION = `
Makes DIRECTORY, a BagIt bag (RFC 8493) of these jobs: what the clients sent, the log lines, the custody record with
proofs, signed checkpoints and time stamps as far as root keeps them, public keys, pages to print, and VERIFY.sh, which
checks all of it with sha256sum and openssl alone. README.txt is for the recipient. Of other jobs and clients it
contains only hashes.

--case NAME selects the jobs on hold for a case: those with a hold whose reason contains NAME as a word. --client,
--command, --since and --until each narrow the choice.

Every stream is compared with the custody record while it is copied. Findings are printed and are in data/findings.txt;
the package is made nevertheless, and recorded with its jobs. On a terminal, webjobctl asks for the case number, the
examiner and the description.

Sealed streams stay sealed. With --identity the plain text is beside them, in out.plain and err.plain.

Give the recipient the SHA-256 that is printed at the end, separately from the package.

Examples:
  webjobctl evidence server_1_1085355126_00723 --out package --key custody.pub --ca tsa-ca.pem
  webjobctl evidence --case 4711 --out case4711 --zip --examiner 'A. Smith' --key custody.pub
  webjobctl evidence --verify package

Exit codes:
  0  made or verified, without findings
  1  made or verified, with findings; or no such job
  2  wrong command line, or several jobs that match
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written, or another webjobctl is running`;

export function evidenceCommand(): Command {
  return new Command('evidence')
    .description('make a package of jobs that anyone can check, or check one')
    .argument('[JOB...]', 'job ids, or their beginnings or ends')
    .option('--out <DIRECTORY>', 'the directory to make for the package')
    .option('--zip', 'also make DIRECTORY.zip')
    .addOption(clientOption())
    .option('--command <COMMAND>', 'only these commands, separated by commas')
    .option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h', parseInstant)
    .option('--until <TIME>', 'only jobs until then, in the same form', parseInstant)
    .option('--case <NAME>', 'jobs on hold for this case')
    .option('--case-number <TEXT>', 'the case number, for bag-info.txt (default: --case)')
    .option('--examiner <TEXT>', 'the examiner, for bag-info.txt (default: the user who runs this)')
    .option('--description <TEXT>', 'a description, for bag-info.txt')
    .option('--key <FILE>', 'the public key of the checkpoints; may be repeated', collect)
    .option('--ca <FILE>', "the certificate of the time stamps' CA, in PEM")
    .option('--trusted <FILE>', 'the keys that sign programs: DsvTrustedKeysFile of the clients')
    .option('--witnesses <FILE>', 'the witnesses that must have cosigned each checkpoint: a policy, or verifier keys')
    .addOption(identityOption())
    .option('--verify <DIRECTORY>', 'check a package instead; no site is needed')
    .addHelpText('after', EXPLANATION)
    .action((jids: string[], options: Options, command: Command) =>
      options.verify === undefined
        ? make(command, jids, options)
        : verify(options.verify, jids, options, globalOptions(command).json === true),
    );
}

function collect(value: string, values: string[] = []): string[] {
  return [...values, value];
}

async function make(command: Command, jids: readonly string[], options: Options): Promise<void> {
  const { out, zip, client, command: program, since, until } = options;
  if (out === undefined) throw new Failure('usage', 'evidence requires --out', '--out DIRECTORY');
  const site = openSite(command);
  const isJson = globalOptions(command).json === true;
  const keys = readKeys(options);
  const identities = await readIdentities(options.identity);
  const directory = findPlace('--out', out, 'a package', site);
  const jobs = await selectJobs(site, { jobs: jids, client, command: program, since, until, case: options.case });
  const given = {
    caseNumber: options.caseNumber ?? options.case,
    examiner: options.examiner,
    description: options.description,
  };
  const info = await completeInfo(given, !isJson);
  const progress = startProgress('jobs', jobs.length);
  const zipFolder = zip && (await import('../bag/zip.ts')).zipFolder;
  const made = await withSiteLock(site.settings, 'keep', () =>
    makePackage(site, {
      directory,
      jobs,
      info,
      keys,
      identities,
      version: WEBJOB_VERSION,
      zip: zipFolder,
      advance: progress.advance,
    }),
  );
  progress.end();
  const { findings, notes, uploads, opened, tagListSha256, verifierSha256 } = made;
  if (findings.length > 0) process.exitCode = EXIT_CODES.findings;
  if (isJson) {
    const facts = { package: directory, zip: zip ? `${directory}.zip` : null, jobs: jobs.length, uploads, opened };
    printJson({
      ...facts,
      ...info,
      caseNumber: info.caseNumber ?? null,
      description: info.description ?? null,
      findings,
      notes,
      tagListSha256,
      verifierSha256,
    });
    return;
  }
  for (const { kind, place, detail } of findings) printLine(safeLine(`${kind.padEnd(20)} ${place}: ${detail}`));
  printLine(`${tagListSha256}  tagmanifest-sha256.txt`);
  printLine(`${verifierSha256}  VERIFY.sh`);
  say(
    `${directory}: ${countOf(jobs.length, 'job')}, ${countOf(uploads, 'upload')}, ${countOf(findings.length, 'finding')}, ${countOf(notes.length, 'note')}`,
  );
}

const WORDS = { ok: 'OK', failed: 'FAILED', note: 'NOTE' };

function verify(directory: string, jids: readonly string[], options: Options, isJson: boolean): void {
  const { verify: _, key, ca, trusted, witnesses, ...others } = options;
  if (jids.length > 0 || Object.keys(others).length > 0)
    throw new Failure('usage', '--verify takes a package, and only --key, --ca, --trusted and --witnesses');
  const counts = { ok: 0, failed: 0, note: 0 };
  for (const { verdict, place, detail } of verifyPackage(directory, readKeys(options))) {
    counts[verdict] += 1;
    if (isJson) printJson({ verdict, place, detail });
    else printLine(safeLine(`${WORDS[verdict].padEnd(7)} ${place}: ${detail}`));
  }
  if (counts.failed > 0) process.exitCode = EXIT_CODES.findings;
  if (isJson) printJson({ verdict: 'summary', ...counts });
  else say(`${countOf(counts.ok, 'check')} passed, ${counts.failed} failed, ${countOf(counts.note, 'note')}`);
}
