// handleRequest: all checks in the order of docs/protocol.md, section 3, the only try/catch, and
// one log line. It knows neither stdin nor sockets: three kinds of programs call the same function.
import { accessSync, constants } from 'node:fs';
import { type Body, type CgiRequest, type CgiResponse, findHeader } from 'node-cgi-compat';
import { runAlone, type Steps } from 'webjob-locker';
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
import type { Answer, Exchange } from './exchange.ts';
import { serveCommand } from './get.ts';
import { takeClientSlot } from './limits.ts';
import { logProblem, logRequest } from './log.ts';
import { overrideSettings } from './overrides.ts';
import { receiveUpload } from './put.ts';
import { Refusal } from './refusal.ts';
import type { ServerSettings } from './setting-table.ts';
import { type Configuration, propertyOf, readSettings } from './settings.ts';
import { trackRequest } from './tracking.ts';
import { startTrigger } from './triggers.ts';

/**
 * Serves one request. Never throws; when it returns, everything it did is on disk and in the log. A
 * persistent worker reads its settings differently and numbers its requests: `nextSequence` returns
 * a number for a given second. It also takes the client's slot before the body arrives, and this
 * function releases it.
 */
export function handleRequest(...given: Parameters<typeof handleSteps>): CgiResponse {
  return runAlone(handleSteps(...given));
}

/**
 * The steps of handleRequest(), for a driver that runs several requests concurrently. Only a PUT
 * has any.
 */
export function* handleSteps(
  request: CgiRequest,
  body: Body,
  read = readSettings,
  nextSequence: (epochSeconds: number) => number = () => process.pid,
  slot?: Exchange['slot'],
): Steps<CgiResponse> {
  const receivedAt = new Date();
  const configuration = read(request.env.WEBJOB_PROPERTIES_FILE || undefined);
  const sequence = nextSequence(epochSeconds(receivedAt));
  const exchange: Exchange = { request, body, settings: configuration.settings, receivedAt, sequence, slot };
  const answer = yield* answerRequest(exchange, configuration);
  logRequest(exchange, answer);
  if (exchange.settings.enableRequestTracking) trackRequest(exchange, answer);
  return formatAnswer(exchange, answer);
}

function* answerRequest(exchange: Exchange, configuration: Configuration): Steps<Answer> {
  try {
    if (configuration.problems.length > 0) throw new Refusal(550, configuration.problems.join('; '));
    checkDirectories(exchange.settings);
    return yield* serve(exchange, configuration);
  } catch (error) {
    if (error instanceof Refusal) return { status: error.status, detail: error.message, retryAfter: error.retryAfter };
    if (error instanceof QueryError) return { status: 450, detail: error.message };
    logProblem(error instanceof Error ? (error.stack ?? error.message) : String(error));
    return { status: 500, detail: 'unexpected, see the error log of httpd' };
  }
}

function* serve(exchange: Exchange, configuration: Configuration): Steps<Answer> {
  const { request } = exchange;
  switch (request.method) {
    case 'GET': {
      exchange.jobId = issueJobId(exchange);
      checkService(exchange);
      const query = parseGetQuery(request.query);
      exchange.query = query;
      prepare(exchange, configuration, query);
      return serveCommand(exchange, query);
    }
    case 'PUT': {
      checkService(exchange);
      const query = parsePutQuery(request.query);
      exchange.query = query;
      exchange.jobId = givenJobId(exchange) ?? issueJobId(exchange);
      prepare(exchange, configuration, query);
      return yield* receiveUpload(exchange, query);
    }
    default:
      throw new Refusal(405, 'only GET and PUT');
  }
}

function checkService({ request, settings }: Exchange): void {
  const control = request.method === 'GET' ? 'EnableGetService' : 'EnablePutService';
  if (!settings[propertyOf(control)]) throw new Refusal(553, `${control}=N`);
}

/** The checks that GET and PUT share, with the settings of this client and command. */
function prepare(exchange: Exchange, { given }: Configuration, { clientId, fileName }: GetQuery): void {
  const { settings } = exchange;
  if (settings.enableConfigOverrides) exchange.settings = overrideSettings(settings, given, clientId, fileName);
  checkService(exchange);
  checkCaller(exchange, clientId);
  exchange.slot ??= takeClientSlot(exchange.settings, clientId);
  if (exchange.slot instanceof Refusal) throw exchange.slot;
  checkContentLength(exchange);
}

/** The id under which the client runs its job; clients up to version 1.3 send none. */
function givenJobId({ request }: Exchange): string | undefined {
  const given = findHeader(request, 'Job-Id');
  if (given === undefined || isJobId(given)) return given;
  throw new Refusal(450, 'Job-Id is not 1 to 255 printable characters without blanks');
}

function issueJobId({ settings, receivedAt, sequence }: Exchange): string | undefined {
  if (!settings.enableJobIds) return undefined;
  return formatJobId({ serverId: settings.serverId, epochSeconds: epochSeconds(receivedAt), sequence });
}

function epochSeconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

function checkContentLength({ request, settings }: Exchange): void {
  if (request.contentLength === undefined) {
    if (request.method === 'GET' && !settings.getRequireContentLength && hasNoBody(request)) return;
    throw new Refusal(454, 'Content-Length is missing or not a number');
  }
  if (settings.capContentLength && request.contentLength > settings.maxContentLength) {
    throw new Refusal(455, 'over MaxContentLength');
  }
}

/**
 * Whether a request has no body: it has neither of the headers that announce one (RFC 9112, section
 * 6.3).
 */
function hasNoBody(request: CgiRequest): boolean {
  return !request.env.CONTENT_LENGTH && findHeader(request, 'Transfer-Encoding') === undefined;
}

/**
 * Checks the directories. Throws Refusal 550 for one that an enabled feature needs and cannot use.
 */
function checkDirectories(settings: ServerSettings): void {
  const { R_OK, W_OK, X_OK } = constants;
  if (settings.enableLogging) checkAccess(settings, 'LogfilesDirectory', X_OK);
  if (settings.enableGetService) checkAccess(settings, 'ProfilesDirectory', R_OK | X_OK);
  if (settings.enablePutService) checkAccess(settings, 'IncomingDirectory', R_OK | W_OK | X_OK);
}

type Directory = 'LogfilesDirectory' | 'ProfilesDirectory' | 'IncomingDirectory';

function checkAccess(settings: ServerSettings, control: Directory, mode: number): void {
  try {
    // With the dot at the end, only a directory passes.
    accessSync(`${settings[propertyOf(control)]}/.`, mode);
  } catch (error) {
    throw new Refusal(550, `${control} is missing or has wrong access: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/**
 * A refused request without a slot must not hold its process for long, because a client may send
 * its body as slowly as it likes.
 */
const DRAIN_LIMIT_MS = 10_000;

function formatAnswer(exchange: Exchange, answer: Answer): CgiResponse {
  const { request, settings, jobId, slot } = exchange;
  const headers: [string, string | undefined][] = [
    ['Server', request.serverSoftware],
    ['Content-Type', 'application/octet-stream'],
    ['Job-Id', request.method === 'GET' ? jobId : undefined],
    ['WebJob-Payload-Signature', answer.signature],
    ['WebJob-Payload-Manifest', answer.manifest],
    ['Retry-After', answer.retryAfter?.toString()],
  ];
  const { status, file, content } = answer;
  const held = slot instanceof Refusal ? undefined : slot;
  return {
    status,
    reason: REASONS[status],
    headers: headers.filter((header): header is [string, string] => Boolean(header[1])),
    contentLength: file?.size ?? content?.length ?? 0,
    content: file ?? content,
    afterwards: findTrigger(exchange, answer),
    atEnd: held && (() => held.release()),
    drainLimitMs: settings.maxRequestsAtOnce > 0 && !held ? DRAIN_LIMIT_MS : undefined,
  };
}

/**
 * The trigger to run after a successful request, if there is one. There is none after a link test,
 * which served nothing, or a repeated upload, whose trigger has already run.
 */
function findTrigger(exchange: Exchange, { status, upload, isRepeat }: Answer): (() => void) | undefined {
  const { settings } = exchange;
  const isEnabled = status === 200 && !isRepeat && settings[upload ? 'putTriggerEnable' : 'getTriggerEnable'];
  return isEnabled ? () => startTrigger(exchange, upload) : undefined;
}
