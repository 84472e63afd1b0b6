// Triggers: commands that run after the answer, whatever becomes of this process (docs/protocol.md, section 4).
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { formatCommandFacts } from 'webjob-protocol';
import { type Exchange, tokenFacts } from './exchange.ts';
import { COMMAND_ENVIRONMENT } from './hooks.ts';
import { complain } from './log.ts';
import { expandCommand } from './tokens.ts';

/**
 * A shell that stays with the command and logs its start and its end, so that nobody else has to live as long. Arguments: the command
 * line, the log, what stands in a line between time and pid, an option for date. One printf is one append.
 */
const SUPERVISOR = `
command=$1 log=$2 facts=$3 zone=$4
say() { printf '%s %s %s %s -- %s\\n' "$(date $zone '+%Y-%m-%d %H:%M:%S')" "$facts" "$kid" "$1" "$2" >> "$log"; }
/bin/sh -c "$command" & kid=$!
say - started
wait "$kid"
say $? ended`;

/** Starts a trigger and leaves it to itself. Never throws: its request is answered already. */
export function startTrigger(
  exchange: Exchange,
  name: 'GetTrigger' | 'PutTrigger',
  paths: Parameters<typeof expandCommand>[2],
): void {
  const commandLine = exchange.settings[name === 'GetTrigger' ? 'getTriggerCommandLine' : 'putTriggerCommandLine'];
  const { settings, jobId, clientId, fileName } = exchange;
  const log = join(settings.logfilesDirectory, 'nph-webjob-trigger.log');
  try {
    const { spawn } = process.getBuiltinModule('node:child_process');
    const facts = formatCommandFacts({ jobId, clientId, fileName, name });
    const args = [expandCommand(commandLine, tokenFacts(exchange), paths), log, facts, settings.useGMT ? '-u' : ''];
    // A session of its own and none of our descriptors: httpd ends what holds one of those.
    spawn('/bin/sh', ['-c', SUPERVISOR, name, ...args], {
      ...{ detached: true, stdio: 'ignore', cwd: '/', env: COMMAND_ENVIRONMENT },
    })
      .on('error', (error) => complain(`${name}: ${(error as NodeJS.ErrnoException).code}`))
      .unref();
    // The supervisor would have nobody to tell.
    closeSync(openSync(log, 'a', 0o644));
  } catch (error) {
    complain(`${name}: ${(error as Error).message}`);
  }
}
