// One request on its way through the server and what has been learned of it so far: what get, put, checks and log share.
import type { Body, CgiRequest } from 'node-cgi-compat';
import type { GroupPaths } from 'webjob-locker';
import { NOT_APPLICABLE, type PutQuery, type Status } from 'webjob-protocol';
import type { ServerSettings } from './controls.ts';
import type { TokenFacts } from './tokens.ts';

export interface Exchange {
  request: CgiRequest;
  body: Body;
  /** The main file's, and once the query has matched, those of this client and command. */
  settings: ServerSettings;
  receivedAt: Date;
  /** The number of this request: of all that came in this second to this machine, no other has it. */
  sequence: number;
  /** Known once issued (GET) or read from the request (PUT). */
  jobId?: string;
  /** Known once the query has matched. */
  clientId?: string;
  fileName?: string;
  /** The same query as a whole, for request tracking. */
  query?: Partial<PutQuery>;
}

/** How the request ended. */
export interface Answer {
  status: Status;
  /** For the log, behind the reason phrase. */
  detail?: string;
  /** What a GET serves: an open file and its size in bytes. */
  file?: { fd: number; size: number };
  /** The value of WebJob-Payload-Signature. */
  signature?: string | undefined;
  /** Where a PUT was stored. */
  upload?: GroupPaths;
  /** SHA-256 of what was served or stored, while requests are tracked. */
  digests?: Record<string, string>;
}

/** What the tokens of this request stand for. */
export function tokenFacts({
  request,
  settings,
  clientId,
  fileName,
  jobId,
  receivedAt,
  sequence,
}: Exchange): TokenFacts {
  return {
    clientId: clientId ?? NOT_APPLICABLE,
    command: fileName ?? NOT_APPLICABLE,
    jobId: jobId ?? NOT_APPLICABLE,
    pid: sequence,
    serverId: settings.serverId,
    remoteAddress: request.remoteAddress ?? NOT_APPLICABLE,
    at: receivedAt,
    useGmt: settings.useGMT,
  };
}
