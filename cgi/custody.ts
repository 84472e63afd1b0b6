// Writes the facts about a deposit to the custody record, before the upload is announced
// (docs/protocol.md, section 8).
import { closeSync, existsSync, fstatSync, openSync, readFileSync } from 'node:fs';
import {
  type CustodyFacts,
  custodyPath,
  type Digests,
  digestRange,
  failureOf,
  type GroupPaths,
  LockerFailure,
  parseCustody,
  parseReady,
  readCustodyEnd,
  runAlone,
  STREAMS,
  type Steps,
  type StreamName,
} from 'webjob-locker';
import { NOT_APPLICABLE } from 'webjob-protocol';
import { type Exchange, identify } from './exchange.ts';
import { logProblem } from './log.ts';

/** The sizes and digests of the three streams of an upload on disk. */
export interface Content {
  bytes: Readonly<Record<StreamName, number>>;
  sha256: Digests;
}

/** Facts about a deposit other than its content. */
interface DepositFacts {
  /** The name of the earlier upload with different bytes, when this one had to be numbered. */
  differsFrom?: string | undefined;
  /** The content that the client sent, when a PutHook has changed it. */
  received?: Content | undefined;
}

/**
 * Records the deposit `name` of a request. When the file does not exist and the web user may not
 * create it, logs an error and continues. Throws LockerFailure.
 */
export function* recordDeposit(exchange: Exchange, name: string, content: Content, more: DepositFacts): Steps<void> {
  const jobId = exchange.jobId ?? NOT_APPLICABLE;
  yield* record(exchange, { event: 'deposit', ...describeRequest(exchange, name, jobId), ...more, ...content });
}

/**
 * The number of bytes at the end of a segment that are searched for a deposit: about 8,000 records.
 */
const SEARCHED_BYTES = 8 * 1024 * 1024;

/**
 * Returns the content that the client had sent, by name, for each of the named deposits of the
 * request's job that a PutHook changed.
 */
export function findReceived({ settings, jobId }: Exchange, names: readonly string[]): Map<string, Content> {
  const found = new Map<string, Content>();
  const path = custodyPath(settings.logfilesDirectory, settings.serverId);
  for (const line of readCustodyEnd(path, SEARCHED_BYTES).split('\n')) {
    if (!line.includes('"received":{')) continue;
    const facts = parseFacts(line);
    const { name = '', received } = facts;
    if (!names.includes(name) || facts.jobId !== (jobId ?? NOT_APPLICABLE)) continue;
    if (received?.bytes && received.sha256) found.set(name, received);
  }
  return found;
}

function parseFacts(line: string): { name?: string; jobId?: string; received?: Content } {
  try {
    return JSON.parse(parseCustody(line)?.text ?? '{}');
  } catch {
    return {};
  }
}

/** Records the content of an upload that is about to be replaced. Throws LockerFailure. */
export function* recordReplaced(exchange: Exchange, name: string, paths: GroupPaths): Steps<void> {
  let content: Content;
  let jobId: string | undefined;
  try {
    content = readContent(paths);
    jobId = parseReady(readFileSync(paths.rdy, 'latin1'));
  } catch (error) {
    // The upload is incomplete or damaged; its replacement must still be recorded.
    if (!(error instanceof SyntaxError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
    content = { bytes: {}, sha256: {} } as Content;
  }
  const by = exchange.jobId ?? NOT_APPLICABLE;
  yield* record(exchange, { event: 'replaced', ...describeRequest(exchange, name, jobId), replacedBy: by, ...content });
}

/** Records the assignments that a client receives in a batch. Throws LockerFailure. */
export function recordBatch(exchange: Exchange, orders: readonly { id: string; due: number; command: string }[]): void {
  if (!exchange.settings.enableCustody) return;
  const { name: _, ...request } = describeRequest(exchange, '', exchange.jobId);
  const given = orders.map(({ id, due, command }) => ({ id, due, command }));
  runAlone(record(exchange, { event: 'batch', ...request, orders: given }));
}

function describeRequest(exchange: Exchange, name: string, jobId: string | undefined) {
  const { request, receivedAt } = exchange;
  const { SSL_CLIENT_VERIFY: tlsVerify, SSL_CLIENT_S_DN: tlsSubject } = request.env;
  return { pid: process.pid, name, ...identify(exchange), jobId, tlsVerify, tlsSubject, receivedAt };
}

function* record({ settings }: Exchange, facts: CustodyFacts): Steps<void> {
  const { logfilesDirectory, serverId, custodySegmentLimit: segmentLimit } = settings;
  const path = custodyPath(logfilesDirectory, serverId);
  try {
    yield { kind: 'record', path, facts: { time: new Date(), ...facts }, segmentLimit };
  } catch (error) {
    const { kind, message } = failureOf(error);
    if (existsSync(path) || kind === 'full') throw new LockerFailure(kind, `custody record: ${message}`);
    logProblem(`no custody record is kept: ${path}: ${message}`);
  }
}

/** Computes the sizes and digests of the streams as a hook left them. */
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
