// webjobctl assign pause.
import type { Command } from 'commander';
import { makeChangeCommand } from '../fleet/change-command.ts';

export function pauseCommand(): Command {
  return makeChangeCommand('pause', 'give an assignment to nobody until it is resumed', 'paused', 'is paused');
}
