// webjobctl sign payload: signatures beside programs.
import { Command } from 'commander';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { readPrivateKey, signFile } from '../../sign/keys.ts';
import { globalOptions } from '../site/site.ts';
export function payloadCommand(): Command {
  return new Command('payload')
    .description('sign programs: the signature of each goes into FILE.sig beside it')
    .argument('<file...>', 'what to sign')
    .requiredOption('--key <file>', 'the private key')
    .addHelpText(
      'after',
      `
The server finds the signature there and sends it along. A program that is changed must be signed again.

Example:
  webjobctl sign payload --key /root/webjob.key /var/integrity/profiles/client1/commands/host.sh

Exit codes:
  0  signed
  2  wrong command line
  4  a key or a file cannot be read, used or written; files named before it are signed`,
    )
    .action((files: string[], { key }: { key: string }, command: Command) => {
      const privateKey = readPrivateKey(key);
      for (const file of files) {
        signFile(file, privateKey);
        if (globalOptions(command).json) printJson({ file, signature: `${file}.sig` });
        else printLine(safeLine(`${file}.sig`));
      }
    });
}
