// webjobctl custody check: checks checkpoints and proofs with nothing but a public key.
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { type Checked, checkText } from '../../evidence/check.ts';
import { readCheckingKey } from '../../evidence/checkpoint.ts';
import { readCosigners } from '../../evidence/cosigners.ts';
import { TlogError } from '../../evidence/tlog.ts';
import { NoteError } from '../../notes/note.ts';
import { globalOptions } from '../site/site.ts';
import { checkStamp } from '../site/stamps.ts';

interface Options {
  key: string;
  witnesses?: string;
  entry?: string;
  old?: string;
  timestamp?: string;
  ca?: string;
}

const EXPLANATION = `
FILE is the output of custody checkpoint, custody prove or custody consistency. No site is needed: this runs anywhere.
For a proof it prints the record that is proved. A proof of another tool may lack the record: give it with --entry.

Examples:
  webjobctl custody check job.tlog-proof --key custody.pub
  webjobctl custody check checkpoints --key custody.pub --witnesses witnesses
  webjobctl custody check proof --key custody.pub --old january
  webjobctl custody check checkpoint --key custody.pub --timestamp stamp.tsr --ca tsa-ca.pem

Exit codes:
  0  everything is valid
  1  something is not valid
  2  wrong command line
  4  a file cannot be read`;

export function checkCommand(): Command {
  return new Command('check')
    .description('check a checkpoint or a proof with the public key alone')
    .argument('<FILE>', 'the output of custody checkpoint, prove or consistency')
    .requiredOption('--key <FILE>', 'the public key of the checkpoints')
    .option(
      '--witnesses <FILE>',
      'the witnesses that must have cosigned each checkpoint: a policy, or verifier keys of which one is enough',
    )
    .option('--entry <FILE>', 'the entry to prove, if the proof does not contain it')
    .option('--old <FILE>', 'the earlier checkpoint, for a proof that the later one extends it')
    .option('--timestamp <FILE>', 'the time stamp of the checkpoint in FILE (with --ca)')
    .option('--ca <FILE>', 'the certificate of the CA of the time stamp, in PEM')
    .addHelpText('after', EXPLANATION)
    .action((path: string, options: Options, command: Command) =>
      run(path, options, globalOptions(command).json === true),
    );
}

function run(path: string, options: Options, isJson: boolean): void {
  if ((options.timestamp === undefined) !== (options.ca === undefined))
    throw new Failure('usage', '--timestamp and --ca must be given together');
  const cosigners = options.witnesses === undefined ? undefined : readCosigners(options.witnesses);
  const trust = { key: readCheckingKey(options.key), cosigners };
  const text = read(path).toString('utf8');
  if (text.startsWith('old ') && options.old === undefined)
    throw new Failure(
      'usage',
      `${path} proves that a checkpoint extends an earlier one`,
      '--old FILE, with the earlier checkpoint',
    );
  try {
    const entry = options.entry === undefined ? undefined : read(options.entry);
    const old = options.old === undefined ? undefined : read(options.old).toString('utf8');
    for (const checked of checkText(text, trust, { entry, old })) {
      if (isJson) printJson(checked);
      else for (const line of describe(checked)) printLine(safeLine(line));
    }
  } catch (error) {
    if (!(error instanceof NoteError || error instanceof TlogError)) throw error;
    throw new Failure('findings', safeLine(`${path}: ${error.message}`));
  }
  if (options.timestamp === undefined || options.ca === undefined) return;
  const time = checkStamp(read(options.timestamp), text, { ca: options.ca }).toISOString();
  if (isJson) printJson({ kind: 'timestamp', time });
  else printLine(`good: it existed at ${time}`);
}

function describe({ kind, origin, size, of, text }: Checked): string[] {
  if (kind === 'checkpoint') return [`good: checkpoint of ${origin}, ${size} entries`];
  if (kind === 'extension') return [`good: ${origin} of ${size} entries begins with the ${of} of the old checkpoint`];
  return [`good: entry ${of} of ${origin}, ${size} entries`, ...(text === undefined ? [] : [text])];
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`);
  }
}
