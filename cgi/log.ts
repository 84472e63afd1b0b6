// The one line a request in nph-webjob.log. Logging never changes an answer: what cannot be written goes to stderr.
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { writeAll } from 'node-cgi-compat';
import { formatLogLine, formatTime, REASONS } from 'webjob-protocol';
import type { Answer, Exchange } from './exchange.ts';

/** Appends the line of a finished request with one write, so that writers of other makes can share the file. */
export function logRequest(exchange: Exchange, answer: Answer): void {
  if (!exchange.settings.enableLogging) return;
  const line = Buffer.from(`${describeRequest(exchange, answer)}\n`);
  try {
    const fd = openSync(join(exchange.settings.logfilesDirectory, 'nph-webjob.log'), 'a', 0o644);
    try {
      writeAll(fd, line);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    complain(`nph-webjob.log: ${(error as NodeJS.ErrnoException).code}: ${line.toString().trimEnd()}`);
  }
}

/** One line on stderr, httpd's error log. Control and non-ASCII characters are escaped: it may land there raw. */
export function complain(message: string): void {
  const safe = message.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  try {
    writeAll(2, Buffer.from(`nph-webjob: ${safe}\n`));
  } catch {
    // Nobody is left to tell.
  }
}

function describeRequest(exchange: Exchange, answer: Answer): string {
  const { request, settings, receivedAt } = exchange;
  const now = new Date();
  const reason = REASONS[answer.status];
  return formatLogLine({
    time: formatTime(now, settings.useGmt),
    jobId: exchange.jobId,
    remoteUser: request.remoteUser,
    remoteAddress: request.remoteAddress,
    method: request.method,
    clientId: exchange.clientId,
    fileName: exchange.fileName,
    bytesReceived: request.contentLength,
    bytesSent: answer.file?.size ?? 0,
    seconds: Math.max(0, Math.floor((now.getTime() - receivedAt.getTime()) / 1000)),
    status: answer.status,
    message: answer.status === 200 ? 'Success' : answer.detail ? `${reason}: ${answer.detail}` : reason,
  });
}
