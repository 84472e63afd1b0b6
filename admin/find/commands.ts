// The commands that find something, in the order in which an operator meets them.
import type { Command } from 'commander';
import { clientsCommand } from './clients.ts';
import { diffCommand } from './diff.ts';
import { jobsCommand } from './jobs.ts';
import { searchCommand } from './search.ts';
import { showCommand } from './show.ts';
import { tailCommand } from './tail.ts';

export const FIND_COMMANDS: readonly (() => Command)[] = [
  ...[jobsCommand, showCommand, diffCommand, searchCommand, tailCommand, clientsCommand],
];
