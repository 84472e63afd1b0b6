// The option by which commands that read jobs keep to some clients. ledger/groups.ts reads what it is given.
import { Option } from 'commander';

export function clientOption(
  description = 'of these clients: ids, globs (* and ?) and groups, with commas between',
): Option {
  return new Option('--client <glob>', description);
}
