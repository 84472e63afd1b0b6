// Request tracking: one line of JSON for each request in nph-webjob.json.log, with all facts that
// the server has about it (docs/protocol.md, section 6). A site without EnableRequestTracking never
// loads node:crypto for this.
import { basename } from 'node:path';
import type { CgiEnvironment } from 'node-cgi-compat';
import { digestRange, newHash } from 'webjob-locker';
import { announcedLengths, escapeAscii } from 'webjob-protocol';
import { type Answer, type Exchange, identify } from './exchange.ts';
import { announcedLength, appendLine, describeAnswer } from './log.ts';

/**
 * Appends the line of a finished request. Times are ISO 8601 in UTC, sizes are in bytes; unknown
 * fields are left out.
 */
export function trackRequest(exchange: Exchange, answer: Answer): void {
  const { request, settings, receivedAt, query } = exchange;
  const { file, content, upload } = answer;
  const announced = query?.runType && announcedLengths(request.query);
  const done = new Date();
  const line = {
    time: done.toISOString(),
    pid: process.pid,
    ...identify(exchange),
    method: request.method,
    version: query?.version,
    system: query?.system,
    runType: query?.runType,
    bytesReceived: exactCount(announcedLength(request)),
    bytesOut: exactCount(announced?.out),
    bytesErr: exactCount(announced?.err),
    bytesEnv: exactCount(announced?.env),
    bytesSent: file?.size ?? content?.length ?? 0,
    milliseconds: Math.max(0, done.getTime() - receivedAt.getTime()),
    status: answer.status,
    message: describeAnswer(answer),
    upload: upload && basename(upload.out, '.out'),
    sha256: answer.digests ?? digestPayload(answer),
    signed: request.method === 'GET' ? answer.signature !== undefined : undefined,
    tls: request.secure ? tlsFacts(request.env) : undefined,
  };
  appendLine(settings, 'nph-webjob.json.log', escapeAscii(JSON.stringify(line)));
}

function digestPayload({ file, content }: Answer): { payload: string } | undefined {
  if (content) return { payload: newHash().update(content).digest('hex') };
  return file && { payload: digestRange(file.fd, 0, file.size) };
}

/** A count as it was announced: a number when that has the same digits, otherwise text. */
function exactCount(digits: string | undefined): number | string | undefined {
  return digits !== undefined && String(Number(digits)) === digits ? Number(digits) : digits;
}

/** The variables of mod_ssl with StdEnvVars. */
function tlsFacts(env: CgiEnvironment): Record<string, string | undefined> {
  return {
    protocol: env.SSL_PROTOCOL,
    cipher: env.SSL_CIPHER,
    verify: env.SSL_CLIENT_VERIFY,
    commonName: env.SSL_CLIENT_S_DN_CN,
    subject: env.SSL_CLIENT_S_DN,
    issuer: env.SSL_CLIENT_I_DN,
  };
}
