// webjobctl sign trust remove: removes a key that no longer signs.
import { Command } from 'commander';
import { printJson, say } from '../../cli/output.ts';
import { changeTrustedKeys, describeKey, findTrustedKey } from '../../sign/trust.ts';
import { globalOptions } from '../site/site.ts';

export function removeCommand(): Command {
  return new Command('remove')
    .description('stop trusting a key')
    .argument('<FILE>', 'the file of trusted keys')
    .argument(
      '<KEY>',
      'the name of the key, its name and id as NAME+ID, a verifier key, or the .vkey file that contains one',
    )
    .addHelpText(
      'after',
      `
A client that has the new file refuses programs that this key signed, unless enough other keys signed them. webjobctl sign
verify --trusted lists those programs beforehand.

Example:
  webjobctl sign trust remove trusted.keys site.example/alice

Exit codes:
  0  removed
  2  wrong command line
  4  the key is not in the file, several keys have the name, or the file cannot be read or written`,
    )
    .action((file: string, key: string, _: unknown, command: Command) => {
      const found = findTrustedKey(file, key);
      changeTrustedKeys(file, found, undefined);
      if (globalOptions(command).json) printJson(describeKey(found));
      else say(`${found.name}+${found.id} is no longer trusted`);
    });
}
