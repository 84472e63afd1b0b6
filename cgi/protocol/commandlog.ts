// The lines of nph-webjob-hook.log and nph-webjob-trigger.log (docs/protocol.md, section 6): which
// request ran which command, and how that ended.
import { encodeField, encodeMessage } from './logline.ts';

export type CommandName = 'GetHook' | 'PutHook' | 'GetTrigger' | 'PutTrigger';

/** A line of either log. Undefined fields are written as `-`. */
export interface CommandLogLine {
  /** `2004-05-23 16:32:06`, when it happened. */
  time: string;
  jobId: string | undefined;
  clientId: string | undefined;
  fileName: string | undefined;
  name: CommandName;
  pid: number;
  /**
   * Exit status or signal at the end, `out` or `err` for a line of output, undefined at the start.
   */
  event: string | undefined;
  message: string;
}

/** Formats the fields between the time and the pid. */
export function formatCommandFacts(line: Pick<CommandLogLine, 'jobId' | 'clientId' | 'fileName' | 'name'>): string {
  return [line.jobId, line.clientId, line.fileName, line.name].map(encodeField).join(' ');
}

/** Formats a line without its newline. */
export function formatCommandLogLine(line: CommandLogLine): string {
  return `${line.time} ${formatCommandFacts(line)} ${line.pid} ${encodeField(line.event)} -- ${encodeMessage(line.message)}`;
}

/** Parses a line. Fields stay encoded. Throws SyntaxError. */
export function parseCommandLogLine(text: string): CommandLogLine {
  const match =
    /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\S+) (\S+) (\S+) ((?:Get|Put)(?:Hook|Trigger)) (\d+) (\S+) -- (.*)$/.exec(text);
  if (!match) throw new SyntaxError('not a line of a hook or trigger log');
  const [, time = '', jobId, clientId, fileName, name, pid, event, message = ''] = match;
  const orNone = (field = '-'): string | undefined => (field === '-' ? undefined : field);
  return {
    time,
    jobId: orNone(jobId),
    clientId: orNone(clientId),
    fileName: orNone(fileName),
    name: name as CommandName,
    pid: Number(pid),
    event: orNone(event),
    message,
  };
}
