// One request on its way through the server and what has been learned of it so far: what get, put, checks and log share.
import type { Body, CgiRequest } from 'node-cgi-compat';
import type { Status } from 'webjob-protocol';
import type { ServerSettings } from './settings.ts';

export interface Exchange {
  request: CgiRequest;
  body: Body;
  settings: ServerSettings;
  receivedAt: Date;
  /** Known once issued (GET) or read from the request (PUT). */
  jobId?: string;
  /** Known once the query has matched. */
  clientId?: string;
  fileName?: string;
}

/** How the request ended. */
export interface Answer {
  status: Status;
  /** For the log, behind the reason phrase. */
  detail?: string;
  /** What a GET serves: an open file and its size in bytes. */
  file?: { fd: number; size: number };
}
