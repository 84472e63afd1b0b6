// Handles one request: finds the page, makes it from the store, and reports errors.
import { appendFileSync } from 'node:fs';
import { type Body, type CgiRequest, type CgiResponse, findHeader } from 'node-cgi-compat';
import { STREAMS } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { openAsFile } from '../ledger/compare.ts';
import { html } from '../pages/html.ts';
import { readForm } from './acting.ts';
import { ACT_KINDS, type ActKind, actsPage, performAct, takeAnswer } from './acts.ts';
import {
  answerAsset,
  answerFile,
  answerJson,
  answerPage,
  answerRedirect,
  answerText,
  type Page,
  type SiteFacts,
  safeFileName,
} from './answer.ts';
import { assignmentJson, assignmentPage, assignmentsJson, assignmentsPage } from './assignments.ts';
import { clientJson, clientPage } from './client.ts';
import { commandJson, commandPage } from './command.ts';
import { type Context, makeContext, NotShown } from './context.ts';
import { diffJson, diffPage } from './diff.ts';
import { failuresFeed } from './feed.ts';
import { findStream, jobDetails, jobPage } from './job.ts';
import { jobsCsv, jobsJson, jobsPage } from './jobs.ts';
import { makeLinks } from './links.ts';
import { clientsJson, clientsPage, commandsJson, commandsPage } from './lists.ts';
import { missedJson, missedPage } from './missed.ts';
import { overviewJson, overviewPage } from './overview.ts';
import { openViewStore, type Place, readPlace } from './place.ts';
import { findJobAddress, searchJson, searchPage } from './search.ts';

/** The settings of the program. */
export interface Serving {
  /** How long a request waits for a store that is being made for the first time. */
  patienceMs: number;
  logProblem(message: string): void;
}

/** The view as a handler of CGI requests; it never throws. */
export function makeViewHandler(serving: Serving): (request: CgiRequest, body: Body) => Promise<CgiResponse> {
  return async (request, body) => {
    const base = (request.env.SCRIPT_NAME ?? '').replace(/\/+$/, '');
    const facts: SiteFacts = { siteName: '', clock: "the server's", user: request.remoteUser };
    try {
      return await answerRequest(request, body, base, facts, serving);
    } catch (error) {
      return answerPage(errorPage(error, serving), makeLinks(base), facts);
    }
  };
}

function errorPage(error: unknown, { logProblem }: Serving): Page {
  if (error instanceof NotShown)
    return {
      status: error.status,
      title: 'Not shown',
      place: undefined,
      content: html`<h1>Not shown</h1><p>${error.message}</p>`,
    };
  const { message, stack, syscall, code } = error as NodeJS.ErrnoException;
  const isKnown = error instanceof Failure || syscall !== undefined || code === 'ERR_SQLITE_ERROR';
  logProblem(`error: ${isKnown ? message : (stack ?? message)}`);
  return {
    status: 500,
    title: 'This page cannot be shown',
    place: undefined,
    // Paths of the server are for its log only.
    content: html`<h1>This page cannot be shown</h1><p>The server's error log has the reason. webjobctl configtest finds most problems.</p>`,
  };
}

async function answerRequest(
  request: CgiRequest,
  body: Body,
  base: string,
  facts: SiteFacts,
  serving: Serving,
): Promise<CgiResponse> {
  const { method, env } = request;
  const path = env.PATH_INFO ?? '';
  const acted = method === 'POST' ? parseActPath(path) : undefined;
  if (method !== 'GET' && method !== 'HEAD' && acted === undefined)
    throw new NotShown(400, 'Pages must be requested with GET.');
  // The body cannot be read later.
  const form = acted === undefined ? undefined : readForm(request, body);
  if (path === '') return answerRedirect(308, `${base}/`);
  const asset = answerAsset(path);
  if (asset) return asset;
  const place = readPlace(env);
  const { settings } = place.site;
  Object.assign(facts, { siteName: settings.serverId, clock: settings.useGMT ? 'GMT' : "the server's" });
  const database = await openViewStore(place, serving.patienceMs);
  if (!database) return answerPage(fillingPage(), makeLinks(base), facts);
  const context = makeContext(place, database, base, new URLSearchParams(request.query));
  const response =
    acted !== undefined && form
      ? await performAct(context, request, acted, form)
      : await findRoute(path)(context, request, facts);
  recordAccess(place, request, path, response.status, form?.get('act') ?? undefined);
  return response;
}

function fillingPage(): Page {
  return {
    status: 503,
    title: 'One moment',
    place: undefined,
    refreshSeconds: 3,
    content: html`<h1>One moment</h1><p>The view's index of the log and the locker is being made, for the first time or after a change of the settings. This page loads again by itself.</p>`,
  };
}

/** The page of acts on a job or an assignment. */
function parseActPath(path: string): readonly [ActKind, string] | undefined {
  const [, given, name = ''] = /^\/act\/([a-z]+)\/([^/]+?)(?:\.html)?$/.exec(path) ?? [];
  const kind = ACT_KINDS.find((known) => known === given);
  return kind && [kind, name];
}

type Route = (context: Context, request: CgiRequest, facts: SiteFacts) => Promise<CgiResponse>;

const page =
  (make: (context: Context) => Page | Promise<Page>): Route =>
  async (context, _, facts) =>
    answerPage(await make(context), context.links, facts);
const json =
  (make: (context: Context) => unknown): Route =>
  async (context) =>
    answerJson(await make(context));

const ROUTES: Readonly<Record<string, Route>> = {
  '/': page(overviewPage),
  '/index.json': json(overviewJson),
  '/jobs': page(jobsPage),
  '/jobs.json': json(jobsJson),
  '/jobs.csv': async (context) => answerText('text/csv; charset=utf-8', await jobsCsv(context), 'jobs.csv'),
  '/clients': page(clientsPage),
  '/clients.json': json(clientsJson),
  '/commands': page(commandsPage),
  '/commands.json': json(commandsJson),
  '/search': async (context, request, facts) => {
    const address = findJobAddress(context);
    return address === undefined ? await page(searchPage)(context, request, facts) : answerRedirect(303, address);
  },
  '/search.json': json(searchJson),
  '/assignments': page(assignmentsPage),
  '/assignments.json': json(assignmentsJson),
  '/missed': page(missedPage),
  '/missed.json': json(missedJson),
  '/diff': page(diffPage),
  '/diff.json': json(diffJson),
  '/failures.atom': async (context, request) =>
    answerText('application/atom+xml; charset=utf-8', failuresFeed(context, originOf(request))),
};

const NAMED: Readonly<
  Record<
    string,
    { page(context: Context, name: string): Promise<Page>; json(context: Context, name: string): Promise<unknown> }
  >
> = {
  job: { page: jobPage, json: jobDetails },
  client: { page: clientPage, json: clientJson },
  command: { page: commandPage, json: commandJson },
  assignment: { page: assignmentPage, json: assignmentJson },
};

/**
 * Finds the route of a path. Throws NotShown. A path names something in the store, never a file.
 */
function findRoute(path: string): Route {
  const exact = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
  if (exact) return exact;
  const [, folder = '', last = ''] = /^\/(job|client|command|assignment)\/([^/]+)$/.exec(path) ?? [];
  const kind = NAMED[folder];
  if (kind) {
    const [, name = '', format] = /^(.+?)(?:\.(json|html))?$/s.exec(last) ?? [];
    return format === 'json'
      ? json((context) => kind.json(context, name))
      : page((context) => kind.page(context, name));
  }
  const acted = parseActPath(path);
  if (acted)
    return async (context, request, facts) => answerPage(actsPage(context, request, ...acted), context.links, facts);
  const [, asked] = /^\/act\/answer\/([^/]+)$/.exec(path) ?? [];
  if (asked !== undefined) return (context, request) => takeAnswer(context, request, asked);
  const [, streamName, of = ''] = /^\/stream\/([a-z]+)\/([^/]+)$/.exec(path) ?? [];
  const stream = STREAMS.find((name) => name === streamName);
  if (!stream) throw new NotShown(404, 'There is no such page.');
  return async (context) => {
    if (context.acts) throw new NotShown(403, 'Downloading a stream is an act here: use the page of its job.');
    const { job, stored } = await findStream(context, stream, of.replace(/\.html$/, ''));
    const fd = await openAsFile(stored);
    return answerFile(fd, stored.bytes, `${safeFileName(job.jobId ?? 'job')}.${stream}.bin`);
  };
}

function originOf(request: CgiRequest): string {
  const host = findHeader(request, 'Host') ?? request.env.SERVER_NAME ?? 'localhost';
  return `${request.secure ? 'https' : 'http'}://${/^[A-Za-z0-9.:[\]-]+$/.test(host) ? host : 'localhost'}`;
}

/**
 * Records which user viewed which page, as a line of JSON. Throws the error of a system call: a
 * page is only shown if the access can be recorded.
 */
function recordAccess(
  { accessRecord }: Place,
  request: CgiRequest,
  path: string,
  status: number,
  act: string | undefined,
): void {
  if (accessRecord === undefined) return;
  const { remoteUser: user = null, remoteAddress: address = null, query } = request;
  // Whether a user may act is known only after httpd has checked the group.
  const actor = request.env.WEBJOB_VIEW_ACTOR === 'yes' || undefined;
  const line = { time: new Date().toISOString(), user, address, path, query, status, actor, act };
  appendFileSync(accessRecord, `${JSON.stringify(line)}\n`, { mode: 0o600 });
}
