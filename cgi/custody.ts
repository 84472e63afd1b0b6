// What the server knows of a deposit, written into the custody record before the deposit is announced (docs/protocol.md, section 8).
import { closeSync, existsSync, fstatSync, openSync } from 'node:fs';
import {
  appendCustody,
  custodyPath,
  type Digests,
  digestRange,
  failureOf,
  type GroupPaths,
  LockerFailure,
  STREAMS,
  type StreamName,
} from 'webjob-locker';
import { NOT_APPLICABLE } from 'webjob-protocol';
import { type Exchange, identify } from './exchange.ts';
import { complain } from './log.ts';

/** What the three streams of a group are on disk. */
export interface Content {
  bytes: Readonly<Record<StreamName, number>>;
  sha256: Digests;
}

/**
 * Records the deposit `name` of a request. At a site where nobody made the file and the web user may not, it complains and goes on. Throws
 * LockerFailure.
 */
export function recordDeposit(exchange: Exchange, name: string, content: Content): void {
  const { request, settings, receivedAt } = exchange;
  const path = custodyPath(settings.logfilesDirectory, settings.serverId);
  const facts = {
    time: new Date(),
    event: 'deposit',
    pid: process.pid,
    name,
    ...identify(exchange),
    jobId: exchange.jobId ?? NOT_APPLICABLE,
    tlsVerify: request.env.SSL_CLIENT_VERIFY,
    tlsSubject: request.env.SSL_CLIENT_S_DN,
    receivedAt,
    ...content,
  };
  try {
    appendCustody(path, facts, true);
  } catch (error) {
    const { kind, message } = failureOf(error);
    if (existsSync(path) || kind === 'full') throw new LockerFailure(kind, `custody record: ${message}`);
    complain(`no custody record is kept: ${path}: ${message}`);
  }
}

/** Reads what a hook left of the streams. */
export function readContent(paths: GroupPaths): Content {
  const content = { bytes: {}, sha256: {} } as { bytes: Record<StreamName, number>; sha256: Digests };
  for (const stream of STREAMS) {
    const fd = openSync(paths[stream], 'r');
    try {
      const { size } = fstatSync(fd);
      content.bytes[stream] = size;
      content.sha256[stream] = digestRange(fd, 0, size);
    } finally {
      closeSync(fd);
    }
  }
  return content;
}
