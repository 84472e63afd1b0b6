// Request tracking: one line of JSON a request in nph-webjob.json.log, with all that is known of it (docs/protocol.md, section 6). Costs
// what it costs: a site without EnableRequestTracking never loads node:crypto.
import { basename } from 'node:path';
import { BODY_CHUNK_BYTES, type Body, type CgiEnvironment } from 'node-cgi-compat';
import { type ByteSource, STREAMS, type StreamName } from 'webjob-locker';
import type { Answer, Exchange } from './exchange.ts';
import { appendLine, describeAnswer } from './log.ts';

const newHash = () => process.getBuiltinModule('node:crypto').createHash('sha256');

/** Passes a body on and takes the SHA-256 of each of the streams in it. */
export function digestStreams(
  body: Body,
  lengths: Readonly<Record<StreamName, number>>,
): ByteSource & { digests(): Record<string, string> } {
  const streams = STREAMS.map((name) => ({ name, left: lengths[name], hash: newHash() }));
  return {
    read(buffer) {
      const count = body.read(buffer);
      let at = 0;
      for (const stream of streams) {
        const length = Math.min(stream.left, count - at);
        stream.hash.update(buffer.subarray(at, at + length));
        stream.left -= length;
        at += length;
      }
      return count;
    },
    digests: () => Object.fromEntries(streams.map(({ name, hash }) => [name, hash.digest('hex')])),
  };
}

/** The SHA-256 of the first `size` bytes of an open file; leaves its offset alone. */
export function digestFile({ fd, size }: { fd: number; size: number }): string {
  const { readSync } = process.getBuiltinModule('node:fs');
  const hash = newHash();
  const buffer = Buffer.allocUnsafe(Math.min(BODY_CHUNK_BYTES, size));
  for (let at = 0; at < size; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, size - at), at);
    if (count === 0) break;
    hash.update(buffer.subarray(0, count));
    at += count;
  }
  return hash.digest('hex');
}

/** Appends the line of a finished request. Times are ISO 8601 in UTC, sizes bytes; what is unknown is left out. */
export function trackRequest(exchange: Exchange, answer: Answer): void {
  const { request, settings, receivedAt, query } = exchange;
  const { file, upload } = answer;
  const done = new Date();
  const line = {
    time: done.toISOString(),
    serverId: settings.serverId,
    pid: process.pid,
    jobId: exchange.jobId,
    remoteUser: request.remoteUser,
    remoteAddress: request.remoteAddress,
    method: request.method,
    clientId: exchange.clientId,
    fileName: exchange.fileName,
    version: query?.version,
    system: query?.system,
    runType: query?.runType,
    bytesReceived: request.contentLength,
    bytesOut: query?.outLength,
    bytesErr: query?.errLength,
    bytesEnv: query?.envLength,
    bytesSent: file?.size ?? 0,
    milliseconds: done.getTime() - receivedAt.getTime(),
    status: answer.status,
    message: describeAnswer(answer),
    upload: upload && basename(upload.out, '.out'),
    sha256: answer.digests ?? (file && { payload: digestFile(file) }),
    signed: request.method === 'GET' ? answer.signature !== undefined : undefined,
    tls: request.secure ? tlsFacts(request.env) : undefined,
  };
  // JSON leaves what is no ASCII as it is, and a terminal may obey it.
  const text = JSON.stringify(line).replace(
    /[^\x20-\x7e]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  appendLine(settings, 'nph-webjob.json.log', text);
}

/** What mod_ssl says with StdEnvVars. */
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
