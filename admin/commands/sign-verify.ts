// webjobctl sign verify: checks whether clients would accept the signatures and manifests beside
// programs.
import { Command } from 'commander';
import { parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { parseCount } from '../../cli/sizes.ts';
import { isAssignmentFile, judgeAssignment } from '../../sign/assignments.ts';
import { checkFile, readPublicKey } from '../../sign/keys.ts';
import { type Judgement, judgeManifest, programOf, readTrustedKeys } from '../../sign/manifests.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  key?: string;
  trusted?: string;
  threshold: number;
  client?: string;
  name?: string;
  at?: Date;
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description('check the signatures and manifests beside programs, and signed assignments, as a client does')
    .argument('<FILE...>', 'the programs, or signed assignments')
    .option('--key <FILE>', 'check FILE.sig with this public key, DsvPublicKeyFile of the clients')
    .option(
      '--trusted <FILE>',
      'check FILE.manifest or an assignment with these keys, DsvTrustedKeysFile of the clients',
    )
    .option('--threshold <NUMBER>', 'the weight of signatures that is required: DsvThreshold', parseCount, 1)
    .option('--client <CLIENT>', 'check as this client')
    .option('--name <NAME>', 'the name that clients request (default: the name of the file)')
    .option('--at <TIME>', 'check as of this time (default: now)', parseInstant)
    .addHelpText(
      'after',
      `
Only the client knows which serial numbers it has seen and what it has run.

Examples:
  webjobctl sign verify --trusted trusted.keys --threshold 2 --client client1 collect.sh
  webjobctl sign verify --key /root/webjob.pub /var/integrity/profiles/client1/commands/host.sh

Exit codes:
  0  all are good
  1  at least one is wrong or missing
  2  wrong command line
  4  a key or a file cannot be read, used or written`,
    )
    .action((files: string[], options: Options, command: Command) => verifyAll(command, files, options));
}

function verifyAll(command: Command, files: string[], options: Options): void {
  const { key, trusted: keysFile, threshold, client: clientId, name, at = new Date() } = options;
  if (key === undefined && keysFile === undefined) throw new Failure('usage', 'give --key or --trusted');
  if (name !== undefined && files.length > 1) throw new Failure('usage', '--name requires a single file');
  const publicKey = key === undefined ? undefined : readPublicKey(key);
  const trusted = keysFile === undefined ? undefined : readTrustedKeys(keysFile);
  for (const program of files.map(programOf)) {
    const isAssignment = isAssignmentFile(program);
    if (isAssignment && !trusted) throw new Failure('usage', 'assignments require --trusted');
    const signature = isAssignment ? undefined : publicKey && checkFile(program, publicKey);
    const judged =
      trusted &&
      (isAssignment
        ? judgeAssignment(program, trusted, threshold, { clientId, at })
        : judgeManifest(program, trusted, threshold, { name, clientId, at }));
    if ([signature, judged?.verdict].some((verdict) => verdict !== undefined && verdict !== 'good'))
      process.exitCode = EXIT_CODES.findings;
    if (globalOptions(command).json) {
      const kind = isAssignment ? 'assignment' : 'manifest';
      printJson({ file: program, ...(signature && { signature }), ...(judged && describe(kind, judged)) });
      continue;
    }
    if (signature) printLine(safeLine(`${signature.padEnd(8)} ${program}`));
    if (!judged) continue;
    const path = isAssignment ? program : `${program}.manifest`;
    printLine(safeLine(`${judged.verdict.padEnd(8)} ${path}${judged.why ? `: ${judged.why}` : ''}`));
  }
}

function describe(kind: 'assignment' | 'manifest', { verdict, why, signers }: Judgement) {
  return { [kind]: verdict, ...(why !== undefined && { why }), ...(signers && { signers }) };
}
