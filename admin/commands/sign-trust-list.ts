// webjobctl sign trust list: lists the keys in a file as a client reads it.
import { Command } from 'commander';
import { formatTable, printJson, printLines } from '../../cli/output.ts';
import type { TrustedKey } from '../../notes/trust.ts';
import { readTrustedKeys } from '../../sign/manifests.ts';
import { describeKey } from '../../sign/trust.ts';
import { globalOptions } from '../site/site.ts';

export function listCommand(): Command {
  return new Command('list')
    .description('list the keys of a file of trusted keys')
    .argument('<FILE>', 'the file of trusted keys')
    .addHelpText(
      'after',
      `
Example:
  webjobctl sign trust list trusted.keys

Exit codes:
  0  listed
  2  wrong command line
  4  the file cannot be read, or no client would accept it`,
    )
    .action((file: string, _: unknown, command: Command) => {
      const keys = readTrustedKeys(file);
      if (globalOptions(command).json) for (const key of keys) printJson(describeKey(key));
      else printLines(formatTable<TrustedKey>(keys, COLUMNS));
    });
}

const COLUMNS = [
  { title: 'WEIGHT', value: ({ weight }: TrustedKey) => String(weight), align: 'right' as const },
  { title: 'ID', value: ({ id }: TrustedKey) => id },
  { title: 'NAME', value: ({ name }: TrustedKey) => name },
];
