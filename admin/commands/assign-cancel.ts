// webjobctl assign cancel: ends an assignment.
import type { Command } from 'commander';
import { makeChangeCommand } from '../fleet/change-command.ts';

export function cancelCommand(): Command {
  return makeChangeCommand(
    'cancel',
    'cancel an assignment for clients that have not fetched it',
    'cancelled',
    'is cancelled; runs that were fetched before continue',
  );
}
