// One request: which page it asks for, made from the store, and what becomes of an error.
import { appendFileSync } from 'node:fs';
import { type CgiRequest, type CgiResponse, findHeader } from 'node-cgi-compat';
import { STREAMS } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { openAsFile } from '../ledger/compare.ts';
import { html } from '../pages/html.ts';
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
import { clientJson, clientPage } from './client.ts';
import { commandJson, commandPage } from './command.ts';
import { type Context, makeContext, NotShown } from './context.ts';
import { diffJson, diffPage } from './diff.ts';
import { failuresFeed } from './feed.ts';
import { findStream, jobDetails, jobPage } from './job.ts';
import { jobsCsv, jobsJson, jobsPage } from './jobs.ts';
import { makeLinks } from './links.ts';
import { clientsJson, clientsPage, commandsJson, commandsPage } from './lists.ts';
import { overviewJson, overviewPage } from './overview.ts';
import { openViewStore, type Place, readPlace } from './place.ts';
import { findJobAddress, searchJson, searchPage } from './search.ts';

/** How the program serves. */
export interface Serving {
  /** So long a request waits for a store that is made for the first time. */
  patienceMs: number;
  complain(message: string): void;
}

/** The view as a handler of CGI requests; it never throws. */
export function makeViewHandler(serving: Serving): (request: CgiRequest) => Promise<CgiResponse> {
  return async (request) => {
    const base = (request.env.SCRIPT_NAME ?? '').replace(/\/+$/, '');
    const facts: SiteFacts = { siteName: '', clock: "the server's", user: request.remoteUser };
    try {
      return await answerRequest(request, base, facts, serving);
    } catch (error) {
      return answerPage(errorPage(error, serving), makeLinks(base), facts);
    }
  };
}

function errorPage(error: unknown, { complain }: Serving): Page {
  if (error instanceof NotShown)
    return {
      ...{ status: error.status, title: 'Not shown', place: undefined },
      content: html`<h1>Not shown</h1><p>${error.message}</p>`,
    };
  const { message, stack, syscall, code } = error as NodeJS.ErrnoException;
  const isKnown = error instanceof Failure || syscall !== undefined || code === 'ERR_SQLITE_ERROR';
  complain(`error: ${isKnown ? message : (stack ?? message)}`);
  return {
    ...{ status: 500, title: 'It cannot be read', place: undefined },
    // Paths of the server are for its log.
    content: html`<h1>It cannot be read</h1><p>The server's error log says what is wrong. webjobctl configtest finds most of it.</p>`,
  };
}

async function answerRequest(
  request: CgiRequest,
  base: string,
  facts: SiteFacts,
  serving: Serving,
): Promise<CgiResponse> {
  const { method, env } = request;
  if (method !== 'GET' && method !== 'HEAD') throw new NotShown(400, 'Pages are asked for by GET.');
  const path = env.PATH_INFO ?? '';
  if (path === '') return answerRedirect(308, `${base}/`);
  const asset = answerAsset(path);
  if (asset) return asset;
  const place = readPlace(env);
  const { settings } = place.site;
  Object.assign(facts, { siteName: settings.serverId, clock: settings.useGMT ? 'GMT' : "the server's" });
  const database = await openViewStore(place, serving.patienceMs);
  if (!database) return answerPage(fillingPage(), makeLinks(base), facts);
  const context = makeContext(place.site, database, base, new URLSearchParams(request.query));
  const route = findRoute(path);
  const response = await route(context, request, facts);
  recordAccess(place, request, path, response.status);
  return response;
}

function fillingPage(): Page {
  return {
    ...{ status: 503, title: 'One moment', place: undefined, refreshSeconds: 3 },
    content: html`<h1>One moment</h1><p>The view's index of the log and the locker is being made, for the first time or after a change of the settings. This page loads again by itself.</p>`,
  };
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
};

/** Throws NotShown. A path only ever names what the store knows; none is one of a file. */
function findRoute(path: string): Route {
  const exact = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
  if (exact) return exact;
  const [, folder = '', last = ''] = /^\/(job|client|command)\/([^/]+)$/.exec(path) ?? [];
  const kind = NAMED[folder];
  if (kind) {
    const [, name = '', format] = /^(.+?)(?:\.(json|html))?$/s.exec(last) ?? [];
    return format === 'json'
      ? json((context) => kind.json(context, name))
      : page((context) => kind.page(context, name));
  }
  const [, streamName, of = ''] = /^\/stream\/([a-z]+)\/([^/]+)$/.exec(path) ?? [];
  const stream = STREAMS.find((name) => name === streamName);
  if (!stream) throw new NotShown(404, 'There is no such page.');
  return async (context) => {
    const { job, stored } = await findStream(context, stream, of.replace(/\.html$/, ''));
    const fd = await openAsFile(stored);
    return answerFile(fd, stored.bytes, `${safeFileName(job.jobId ?? 'job')}.${stream}.bin`);
  };
}

function originOf(request: CgiRequest): string {
  const host = findHeader(request, 'Host') ?? request.env.SERVER_NAME ?? 'localhost';
  return `${request.secure ? 'https' : 'http'}://${/^[A-Za-z0-9.:[\]-]+$/.test(host) ? host : 'localhost'}`;
}

/** Who looked at what, a line of JSON each. Throws the error of a system call: what cannot be recorded is not shown. */
function recordAccess({ accessRecord }: Place, request: CgiRequest, path: string, status: number): void {
  if (accessRecord === undefined) return;
  const { remoteUser: user = null, remoteAddress: address = null, query } = request;
  const line = { time: new Date().toISOString(), user, address, path, query, status };
  appendFileSync(accessRecord, `${JSON.stringify(line)}\n`, { mode: 0o600 });
}
