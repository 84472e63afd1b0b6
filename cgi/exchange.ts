// One request and the facts known about it so far, shared by GET, PUT, the checks and the log.
import type { Body, CgiRequest } from 'node-cgi-compat';
import type { GroupPaths, Slot } from 'webjob-locker';
import type { GetQuery, PutQuery, Status } from 'webjob-protocol';
import type { Refusal } from './refusal.ts';
import type { ServerSettings } from './setting-table.ts';
import type { TokenFacts } from './tokens.ts';

export interface Exchange {
  request: CgiRequest;
  body: Body;
  /**
   * The settings of the main file or, once the query has been parsed, those of this client and
   * command.
   */
  settings: ServerSettings;
  receivedAt: Date;
  /** The number of this request, unique among all requests to this machine in this second. */
  sequence: number;
  /**
   * The client's slot that this request holds, or why it got none. Set early where the body is
   * received before the request is handled.
   */
  slot?: Slot | Refusal | undefined;
  /** The job id, known once it was issued (GET) or read from the request (PUT). */
  jobId?: string | undefined;
  /** The query, known once it has been parsed. */
  query?: GetQuery & Partial<PutQuery>;
}

/** How the request ended. */
export interface Answer {
  status: Status;
  /** Logged after the reason phrase. */
  detail?: string;
  /** Retry-After, in seconds. */
  retryAfter?: number | undefined;
  /** The file that a GET serves: open, with its size in bytes. */
  file?: { fd: number; size: number } | undefined;
  /** The content that was made for a GET. */
  content?: Uint8Array | undefined;
  /** The value of WebJob-Payload-Signature. */
  signature?: string | undefined;
  /** The value of WebJob-Payload-Manifest. */
  manifest?: string | undefined;
  /** The paths of the upload that a PUT stored. */
  upload?: GroupPaths;
  /** Whether a PUT has the same job id and the same bytes as an earlier one. */
  isRepeat?: boolean;
  /** SHA-256 of the served or stored bytes, when requests are tracked. */
  digests?: Record<string, string> | undefined;
}

/** The client, command and job of a request, as every log, record and token names them. */
export function identify({ request, settings, jobId, query }: Exchange) {
  const { remoteUser, remoteAddress } = request;
  const { serverId } = settings;
  return { serverId, jobId, clientId: query?.clientId, fileName: query?.fileName, remoteUser, remoteAddress };
}

/** The values of the tokens for this request. */
export function tokenFacts(exchange: Exchange): TokenFacts {
  const { settings, receivedAt, sequence } = exchange;
  return { ...identify(exchange), pid: sequence, at: receivedAt, useGmt: settings.useGMT };
}
