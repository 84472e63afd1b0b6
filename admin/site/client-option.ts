// The option by which commands that read jobs select clients. ledger/groups.ts parses its value.
import { Option } from 'commander';

export function clientOption(
  description = 'of these clients: ids, globs (* and ?) and groups, with commas between',
): Option {
  return new Option('--client <glob>', description);
}
