// Triggers: commands that run after the answer and do not depend on this process (docs/protocol.md,
// section 4).
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { GroupPaths } from 'webjob-locker';
import { formatCommandFacts } from 'webjob-protocol';
import { type Exchange, identify, tokenFacts } from './exchange.ts';
import { COMMAND_ENVIRONMENT } from './hooks.ts';
import { logProblem } from './log.ts';
import { expandCommand } from './tokens.ts';

/**
 * A shell that stays with the command and logs its start and end, so that no other process has to
 * live as long. Arguments: the command line, the log, the fields between the time and the pid, an
 * option for date. One printf is one append; a line that a full disk cut short is ended first.
 */
const SUPERVISOR = `
command=$1 log=$2 facts=$3 zone=$4
say() {
  begin=''
  if [ -s "$log" ] && [ -r "$log" ] && [ $(tail -c 1 "$log" | wc -l) -eq 0 ]; then begin='
'; fi
  printf '%s%s %s %s %s -- %s\\n' "$begin" "$(date $zone '+%Y-%m-%d %H:%M:%S')" "$facts" "$kid" "$1" "$2" >> "$log"
}
/bin/sh -c "$command" & kid=$!
say - started
wait "$kid"
say $? ended`;

/**
 * Starts the trigger of a GET or, with the files of an upload, of a PUT, and does not wait for it.
 * Never throws, because the request is already answered.
 */
export function startTrigger(exchange: Exchange, upload: GroupPaths | undefined): void {
  const { settings } = exchange;
  const name = upload ? 'PutTrigger' : 'GetTrigger';
  const commandLine = upload ? settings.putTriggerCommandLine : settings.getTriggerCommandLine;
  const log = join(settings.logfilesDirectory, 'nph-webjob-trigger.log');
  try {
    const { spawn } = process.getBuiltinModule('node:child_process');
    const facts = formatCommandFacts({ ...identify(exchange), name });
    const args = [expandCommand(commandLine, tokenFacts(exchange), upload), log, facts, settings.useGMT ? '-u' : ''];
    // A session of its own without our descriptors, because httpd ends processes that hold one of
    // those.
    const options = { detached: true, stdio: 'ignore', cwd: '/', env: COMMAND_ENVIRONMENT } as const;
    spawn('/bin/sh', ['-c', SUPERVISOR, name, ...args], options)
      .on('error', (error) => logProblem(`${name}: ${error.message}`))
      .unref();
    // The supervisor cannot report a log that it cannot open, so this is tested here.
    closeSync(openSync(log, 'a', 0o644));
  } catch (error) {
    logProblem(`${name}: ${(error as Error).message}`);
  }
}
