// The logs of a request: one line in nph-webjob.log, and one in nph-webjob-hook.log for everything
// that a hook did or printed. Logging never changes an answer: lines that cannot be written go to
// stderr.
import { closeSync, existsSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { type CgiRequest, writeAll } from 'node-cgi-compat';
import {
  type CommandName,
  escapeAscii,
  formatCommandLogLine,
  formatLogLine,
  formatTime,
  REASONS,
} from 'webjob-protocol';
import { type Answer, type Exchange, identify } from './exchange.ts';
import type { ServerSettings } from './setting-table.ts';

/** Appends the line of a finished request. */
export function logRequest(exchange: Exchange, answer: Answer): void {
  const { request, settings, receivedAt } = exchange;
  if (!settings.enableLogging) return;
  const now = new Date();
  const line = formatLogLine({
    time: formatTime(now, settings.useGMT),
    ...identify(exchange),
    method: request.method,
    bytesReceived: announcedLength(request),
    bytesSent: answer.file?.size ?? answer.content?.length ?? 0,
    seconds: Math.max(0, Math.floor((now.getTime() - receivedAt.getTime()) / 1000)),
    status: answer.status,
    message: describeAnswer(answer),
  });
  appendLine(settings, 'nph-webjob.log', line);
}

/**
 * The digits of Content-Length as announced, because a number may not represent them exactly;
 * undefined when it was not a number.
 */
export function announcedLength({ contentLength, env }: CgiRequest): string | undefined {
  return contentLength === undefined ? undefined : env.CONTENT_LENGTH;
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

/**
 * Appends a line with one write, so that other programs can write to the same file. After a line
 * that a full disk cut short, the new one begins on a line of its own.
 */
export function appendLine(settings: ServerSettings, file: string, line: string): void {
  try {
    const fd = openLog(`${settings.logfilesDirectory}/${file}`);
    try {
      const bytes = Buffer.from(`${endsTorn(fd) ? '\n' : ''}${line}\n`);
      // The rest is not written later, because it could land after another process's line.
      if (writeSync(fd, bytes) < bytes.length) logProblem(`${file}: truncated: ${line}`);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    logProblem(`${file}: ${(error as NodeJS.ErrnoException).code}: ${line}`);
  }
}

/**
 * The number of attempts to open a log: logrotate renames the old one before it creates the new
 * one, which the web user often may not create.
 */
const ROTATION_TRIES = 10;
const ROTATION_MS = 20;

/** Opens a log to append and read; only to append when it may not be read. */
function openLog(path: string): number {
  for (let tries = 1; ; tries++) {
    try {
      return openSync(path, 'a+', 0o644);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
    }
    if (tries === ROTATION_TRIES || existsSync(path)) return openSync(path, 'a', 0o644);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ROTATION_MS);
  }
}

/**
 * Whether the last line has no newline. False for a log that cannot be read at its end, such as a
 * pipe.
 */
function endsTorn(fd: number): boolean {
  try {
    const { size } = fstatSync(fd);
    const last = Buffer.alloc(1);
    return size > 0 && readSync(fd, last, 0, 1, size - 1) === 1 && last[0] !== 0x0a;
  } catch {
    return false;
  }
}

/**
 * Writes one line to stderr, which is httpd's error log. Control and non-ASCII characters are
 * escaped, because the log may be shown unfiltered on a terminal.
 */
export function logProblem(message: string): void {
  try {
    writeAll(2, Buffer.from(`nph-webjob: ${escapeAscii(message)}\n`));
  } catch {
    // Nobody is left to notify.
  }
}

/** The log's description of an answer: `Success` or the reason, and then the detail. */
export function describeAnswer({ status, detail }: Answer): string {
  return (status < 300 ? 'Success' : REASONS[status]) + (detail ? `: ${detail}` : '');
}
