// The option by which commands that read jobs select clients. ledger/groups.ts parses its value.
import { Option } from 'commander';

export function clientOption(
  description = 'only these clients: ids, globs (* and ?) or groups, separated by commas',
): Option {
  return new Option('--client <CLIENT>', description);
}
