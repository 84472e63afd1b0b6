// webjobctl sign add: adds another signer's signature to existing manifests.
import { Command } from 'commander';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { addToAssignment, describeSigned, isAssignmentFile } from '../../sign/assignments.ts';
import { readNoteSigner, readPrivateKey } from '../../sign/keys.ts';
import { addToManifest, describeManifest, programOf } from '../../sign/manifests.ts';
import { globalOptions } from '../site/site.ts';

export function addCommand(): Command {
  return new Command('add')
    .description("add another signer's signature to the manifests beside programs, or to assignments")
    .argument('<FILE...>', 'the programs, or their manifests; signed assignments')
    .requiredOption('--key <FILE>', 'the private key, Ed25519')
    .option('--key-name <NAME>', 'the name of the key (default: the name in KEY.vkey, or of the file)')
    .addHelpText(
      'after',
      `
The text of the manifest or assignment does not change; webjobctl sign show prints it. The program beside a manifest must
match it. Use this command to add the signature of a second person, or of a new key that replaces an old one.

Examples:
  webjobctl sign add --key /root/bob.key collect.sh
  find /var/integrity/profiles -name '*.manifest' -exec webjobctl sign add --key /root/new.key {} +

Exit codes:
  0  added
  2  wrong command line
  4  a key or a file cannot be read, used or written; files named before it are signed`,
    )
    .action((files: string[], { key, keyName }: { key: string; keyName?: string }, command: Command) => {
      const signer = readNoteSigner(key, readPrivateKey(key), keyName);
      for (const program of files.map(programOf)) {
        if (isAssignmentFile(program)) {
          const found = addToAssignment(program, signer);
          if (globalOptions(command).json) printJson({ file: program, ...describeSigned(found) });
          else printLine(safeLine(program));
          continue;
        }
        const found = addToManifest(program, signer);
        if (globalOptions(command).json) printJson({ file: program, manifest: found.path, ...describeManifest(found) });
        else printLine(safeLine(found.path));
      }
    });
}
