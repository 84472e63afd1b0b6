// One request on its way through the server and what has been learned of it so far: what get, put, checks and log share.
import type { Body, CgiRequest } from 'node-cgi-compat';
import type { GroupPaths, Slot } from 'webjob-locker';
import type { GetQuery, PutQuery, Status } from 'webjob-protocol';
import type { ServerSettings } from './controls.ts';
import type { Refusal } from './refusal.ts';
import type { TokenFacts } from './tokens.ts';

export interface Exchange {
  request: CgiRequest;
  body: Body;
  /** The main file's, and once the query has matched, those of this client and command. */
  settings: ServerSettings;
  receivedAt: Date;
  /** The number of this request: of all that came in this second to this machine, no other has it. */
  sequence: number;
  /** The slot of the client that this request holds, or why it was given none: before it is known where bodies are received early. */
  slot?: Slot | Refusal | undefined;
  /** Known once issued (GET) or read from the request (PUT). */
  jobId?: string | undefined;
  /** Known once it has matched. */
  query?: GetQuery & Partial<PutQuery>;
}

/** How the request ended. */
export interface Answer {
  status: Status;
  /** For the log, behind the reason phrase. */
  detail?: string;
  /** Seconds. */
  retryAfter?: number | undefined;
  /** What a GET serves: an open file and its size in bytes. */
  file?: { fd: number; size: number } | undefined;
  /** What a GET serves that was made for it. */
  content?: Uint8Array | undefined;
  /** The value of WebJob-Payload-Signature. */
  signature?: string | undefined;
  /** The value of WebJob-Payload-Manifest. */
  manifest?: string | undefined;
  /** Where a PUT was stored. */
  upload?: GroupPaths;
  /** A PUT whose very bytes were stored before, by the same job. */
  isRepeat?: boolean;
  /** SHA-256 of what was served or stored, while requests are tracked. */
  digests?: Record<string, string> | undefined;
}

/** Whose request it is and what it is about, as every log, record and token names it. */
export function identify({ request, settings, jobId, query }: Exchange) {
  const { remoteUser, remoteAddress } = request;
  const { serverId } = settings;
  return { serverId, jobId, clientId: query?.clientId, fileName: query?.fileName, remoteUser, remoteAddress };
}

/** What the tokens of this request stand for. */
export function tokenFacts(exchange: Exchange): TokenFacts {
  const { settings, receivedAt, sequence } = exchange;
  return { ...identify(exchange), pid: sequence, at: receivedAt, useGmt: settings.useGMT };
}
