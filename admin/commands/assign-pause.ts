// webjobctl assign pause: suspends an assignment.
import type { Command } from 'commander';
import { makeChangeCommand } from '../fleet/change-command.ts';

export function pauseCommand(): Command {
  return makeChangeCommand('pause', 'pause an assignment', 'paused', 'is paused');
}
