// webjobctl assign resume.
import type { Command } from 'commander';
import { makeChangeCommand } from '../fleet/change-command.ts';

export function resumeCommand(): Command {
  return makeChangeCommand('resume', 'go on with an assignment that was paused', 'active', 'goes on');
}
