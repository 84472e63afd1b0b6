// webjobctl sign trust add: adds a key, or changes the weight of one.
import { Command, InvalidArgumentError } from 'commander';
import { printJson, say } from '../../cli/output.ts';
import { changeTrustedKeys, describeKey, findVerifierKey } from '../../sign/trust.ts';
import { globalOptions } from '../site/site.ts';

export function addCommand(): Command {
  return new Command('add')
    .description('trust a key, or give it another weight')
    .argument('<FILE>', 'the file of trusted keys; made if it is missing')
    .argument('<KEY>', 'a verifier key, or the .vkey file that contains one')
    .option('--weight <NUMBER>', 'the weight of its signature', parseWeight, 1)
    .addHelpText(
      'after',
      `
Comments in the file stay. DsvThreshold is the total weight that the signatures of a manifest must have: with keys of
weight 1 and a threshold of 2, two people must sign.

Example:
  webjobctl sign trust add trusted.keys /root/alice.vkey

Exit codes:
  0  trusted
  2  wrong command line
  4  a key or a file cannot be read, used or written`,
    )
    .action((file: string, key: string, { weight }: { weight: number }, command: Command) => {
      const trusted = { ...findVerifierKey(key), weight };
      changeTrustedKeys(file, trusted, trusted);
      if (globalOptions(command).json) printJson(describeKey(trusted));
      else say(`${trusted.name}+${trusted.id} is trusted with a weight of ${weight}`);
    });
}

function parseWeight(text: string): number {
  if (!/^[1-9][0-9]?$/.test(text)) throw new InvalidArgumentError('a weight is 1 to 99.');
  return Number(text);
}
