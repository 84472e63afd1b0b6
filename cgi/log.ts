// What a request leaves in the logs: the one line in nph-webjob.log, and one for whatever a hook did or said. Logging never changes
// an answer: what cannot be written goes to stderr.
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { writeAll } from 'node-cgi-compat';
import {
  type CommandName,
  escapeAscii,
  formatCommandLogLine,
  formatLogLine,
  formatTime,
  REASONS,
} from 'webjob-protocol';
import type { ServerSettings } from './controls.ts';
import { type Answer, type Exchange, identify } from './exchange.ts';

/** Appends the line of a finished request. */
export function logRequest(exchange: Exchange, answer: Answer): void {
  const { request, settings, receivedAt } = exchange;
  if (!settings.enableLogging) return;
  const now = new Date();
  const line = formatLogLine({
    time: formatTime(now, settings.useGMT),
    ...identify(exchange),
    method: request.method,
    bytesReceived: request.contentLength,
    bytesSent: answer.file?.size ?? 0,
    seconds: Math.max(0, Math.floor((now.getTime() - receivedAt.getTime()) / 1000)),
    status: answer.status,
    message: describeAnswer(answer),
  });
  appendLine(settings, 'nph-webjob.log', line);
}

/** Appends a line about a hook to nph-webjob-hook.log. */
export function logHook(
  exchange: Exchange,
  name: CommandName,
  pid: number,
  event: string | undefined,
  message: string,
): void {
  const time = formatTime(new Date(), exchange.settings.useGMT);
  const line = formatCommandLogLine({ ...identify(exchange), time, name, pid, event, message });
  appendLine(exchange.settings, 'nph-webjob-hook.log', line);
}

/** Appends a line with one write, so that writers of other makes can share the file. */
export function appendLine(settings: ServerSettings, file: string, line: string): void {
  try {
    const fd = openSync(join(settings.logfilesDirectory, file), 'a', 0o644);
    try {
      writeAll(fd, Buffer.from(`${line}\n`));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    complain(`${file}: ${(error as NodeJS.ErrnoException).code}: ${line}`);
  }
}

/** One line on stderr, httpd's error log. Control and non-ASCII characters are escaped: it may land there raw. */
export function complain(message: string): void {
  try {
    writeAll(2, Buffer.from(`nph-webjob: ${escapeAscii(message)}\n`));
  } catch {
    // Nobody is left to tell.
  }
}

/** What the log says of an answer: `Success`, or the reason and what was wrong. */
export function describeAnswer({ status, detail }: Answer): string {
  return status < 300 ? 'Success' : REASONS[status] + (detail ? `: ${detail}` : '');
}
