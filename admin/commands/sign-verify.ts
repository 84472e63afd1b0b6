// webjobctl sign verify: whether clients would take the signatures beside programs.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { checkFile, readPublicKey } from '../../sign/keys.ts';
import { globalOptions } from '../site/site.ts';
export function verifyCommand(): Command {
  return new Command('verify')
    .description('check the signatures beside programs, as a client does')
    .argument('<file...>', 'the programs')
    .requiredOption('--key <file>', 'the public key: DsvPublicKeyFile of the clients')
    .addHelpText(
      'after',
      `
Example:
  webjobctl sign verify --key /root/webjob.pub /var/integrity/profiles/client1/commands/host.sh

Exit codes:
  0  every signature is good
  1  one is wrong or missing
  2  wrong command line
  4  a key or a file cannot be read, used or written`,
    )
    .action((files: string[], { key }: { key: string }, command: Command) => {
      const publicKey = readPublicKey(key);
      for (const file of files) {
        const signature = checkFile(file, publicKey);
        if (signature !== 'good') process.exitCode = EXIT_CODES.findings;
        if (globalOptions(command).json) printJson({ file, signature });
        else printLine(safeLine(`${signature.padEnd(8)} ${file}`));
      }
    });
}
