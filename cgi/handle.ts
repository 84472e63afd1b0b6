// handleRequest: every check in the contract's order (docs/protocol.md, section 3), the only try/catch, one log line. Knows neither
// stdin nor sockets: three shells wrap the same function.
import { accessSync, constants } from 'node:fs';
import { type Body, type CgiRequest, type CgiResponse, findHeader } from 'node-cgi-compat';
import {
  formatJobId,
  type GetQuery,
  isJobId,
  parseGetQuery,
  parsePutQuery,
  QueryError,
  REASONS,
} from 'webjob-protocol';
import { checkCaller } from './authorize.ts';
import type { ServerSettings } from './controls.ts';
import type { Answer, Exchange } from './exchange.ts';
import { serveCommand } from './get.ts';
import { complain, logRequest } from './log.ts';
import { overrideSettings } from './overrides.ts';
import { receiveUpload } from './put.ts';
import { Refusal } from './refusal.ts';
import { type Configuration, readSettings } from './settings.ts';
import { trackRequest } from './tracking.ts';
import { startTrigger } from './triggers.ts';

/**
 * Serves one request: never throws, and what it did is on disk and in the log when it returns. A process that stays reads its settings in
 * another way, and numbers its requests: `nextSequence` gives a number for the second it is given.
 */
export function handleRequest(
  request: CgiRequest,
  body: Body,
  read = readSettings,
  nextSequence: (epochSeconds: number) => number = () => process.pid,
): CgiResponse {
  const receivedAt = new Date();
  const configuration = read(request.env.WEBJOB_PROPERTIES_FILE || undefined);
  const sequence = nextSequence(epochSeconds(receivedAt));
  const exchange: Exchange = { request, body, settings: configuration.settings, receivedAt, sequence };
  const answer = answerRequest(exchange, configuration);
  logRequest(exchange, answer);
  if (exchange.settings.enableRequestTracking) trackRequest(exchange, answer);
  return formatAnswer(exchange, answer);
}

function answerRequest(exchange: Exchange, configuration: Configuration): Answer {
  try {
    if (configuration.problems.length > 0) throw new Refusal(550, configuration.problems.join('; '));
    checkDirectories(exchange.settings);
    return serve(exchange, configuration);
  } catch (error) {
    if (error instanceof Refusal) return { status: error.status, detail: error.message };
    complain(error instanceof Error ? (error.stack ?? error.message) : String(error));
    return { status: 500, detail: 'unexpected, see the error log of httpd' };
  }
}

function serve(exchange: Exchange, configuration: Configuration): Answer {
  const { method } = exchange.request;
  switch (method) {
    case 'GET': {
      if (exchange.settings.enableJobIds) exchange.jobId = issueJobId(exchange);
      checkService(exchange);
      const query = parse(parseGetQuery, exchange);
      prepare(exchange, configuration, query);
      return serveCommand(exchange, query);
    }
    case 'PUT': {
      checkService(exchange);
      const query = parse(parsePutQuery, exchange);
      takeJobId(exchange);
      prepare(exchange, configuration, query);
      return receiveUpload(exchange, query);
    }
    default:
      throw new Refusal(405, 'only GET and PUT');
  }
}

function checkService({ request, settings }: Exchange): void {
  const [control, isEnabled] =
    request.method === 'GET'
      ? ['EnableGetService', settings.enableGetService]
      : ['EnablePutService', settings.enablePutService];
  if (!isEnabled) throw new Refusal(553, `${control}=N`);
}

/** The checks that GET and PUT share, under the settings of this client and command. */
function prepare(exchange: Exchange, { given }: Configuration, { clientId, fileName }: GetQuery): void {
  const { settings } = exchange;
  if (settings.enableConfigOverrides) exchange.settings = overrideSettings(settings, given, clientId, fileName);
  checkService(exchange);
  checkCaller(exchange, clientId);
  checkContentLength(exchange);
}

/** The query by its parser; what it names is from then on known to the log. */
function parse<Query extends GetQuery>(parser: (raw: string) => Query, exchange: Exchange): Query {
  try {
    const query = parser(exchange.request.query);
    exchange.clientId = query.clientId;
    exchange.fileName = query.fileName;
    exchange.query = query;
    return query;
  } catch (error) {
    if (error instanceof QueryError) throw new Refusal(450, error.message);
    throw error;
  }
}

/** The id under which the client runs its job. One without an id (clients up to 1.3) is given a fresh one. */
function takeJobId(exchange: Exchange): void {
  const given = findHeader(exchange.request, 'Job-Id');
  if (given === undefined) {
    if (exchange.settings.enableJobIds) exchange.jobId = issueJobId(exchange);
  } else if (isJobId(given)) {
    exchange.jobId = given;
  } else {
    throw new Refusal(450, 'Job-Id is not 1 to 255 printable characters without blanks');
  }
}

function issueJobId({ settings, receivedAt, sequence }: Exchange): string {
  return formatJobId({ serverId: settings.serverId, epochSeconds: epochSeconds(receivedAt), sequence });
}

function epochSeconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

function checkContentLength({ request, settings }: Exchange): void {
  if (request.contentLength === undefined) throw new Refusal(454, 'no Content-Length, or no number');
  if (settings.capContentLength && request.contentLength > settings.maxContentLength) {
    throw new Refusal(455, 'over MaxContentLength');
  }
}

/** Throws Refusal 550 for a directory that an enabled service needs and cannot use. */
function checkDirectories(settings: ServerSettings): void {
  const { R_OK, W_OK, X_OK } = constants;
  if (settings.enableLogging) checkAccess('LogfilesDirectory', settings.logfilesDirectory, X_OK);
  if (settings.enableGetService) checkAccess('ProfilesDirectory', settings.profilesDirectory, R_OK | X_OK);
  if (settings.enablePutService) checkAccess('IncomingDirectory', settings.incomingDirectory, R_OK | W_OK | X_OK);
}

function checkAccess(control: string, path: string, mode: number): void {
  try {
    // The dot at the end makes it a directory or an error.
    accessSync(`${path}/.`, mode);
  } catch (error) {
    throw new Refusal(550, `${control} is missing or has wrong access: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function formatAnswer(exchange: Exchange, answer: Answer): CgiResponse {
  const { request, jobId } = exchange;
  const headers: [string, string][] = [];
  if (request.serverSoftware) headers.push(['Server', request.serverSoftware]);
  headers.push(['Content-Type', 'application/octet-stream']);
  if (request.method === 'GET' && jobId !== undefined) headers.push(['Job-Id', jobId]);
  if (answer.signature !== undefined) headers.push(['WebJob-Payload-Signature', answer.signature]);
  const afterwards = findTrigger(exchange, answer);
  return {
    status: answer.status,
    reason: REASONS[answer.status],
    headers,
    contentLength: answer.file?.size ?? 0,
    ...(answer.file && { content: { fd: answer.file.fd } }),
    ...(afterwards && { afterwards }),
  };
}

/** What runs after a request that was served, if anything does. A link test served nothing. */
function findTrigger(exchange: Exchange, { status, upload }: Answer): (() => void) | undefined {
  const { settings } = exchange;
  if (status !== 200 || !settings[upload ? 'putTriggerEnable' : 'getTriggerEnable']) return undefined;
  return () => startTrigger(exchange, upload);
}
