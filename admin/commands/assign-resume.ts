// webjobctl assign resume: continues a paused assignment.
import type { Command } from 'commander';
import { makeChangeCommand } from '../fleet/change-command.ts';

export function resumeCommand(): Command {
  return makeChangeCommand('resume', 'resume a paused assignment', 'active', 'continues');
}
