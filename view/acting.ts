// Who may act, and whether a form is genuine: httpd decides who is in the group, the browser says
// where a form comes from, and a token binds it to its user, its act and its job.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { closeSync, openSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Body, type CgiRequest, findHeader } from 'node-cgi-compat';
import { syncFile, syncFolder, writeAll } from 'webjob-locker/durable';
import { type ActName, type ActRequest, actFile, formatRequest, makeActId, parseActId } from '../admin/acts/request.ts';
import { NotShown } from './context.ts';
import type { ActPlace } from './place.ts';

/** An older form must be loaded again. */
const FORM_LIFETIME_MS = 8 * 3_600_000;
/** The size of the longest text when each of its characters is encoded as twelve. */
const MAX_FORM_BYTES = 16 * 1024;
/** The maximum number of waiting requests, more than people make. */
const MAX_WAITING = 200;
const SECRET_BYTES = 32;

/**
 * The user, who is in the group that may act. httpd says so by a variable that no request header
 * can set, and only after the `Require group` of webjob-view.conf. Throws NotShown.
 */
export function requireActor({ env, remoteUser }: CgiRequest): string {
  if (env.WEBJOB_VIEW_ACTOR === 'yes' && remoteUser !== undefined) return remoteUser;
  throw new NotShown(403, 'You may not act: you are not in the group that webjob-view.conf names.');
}

/**
 * Checks that a form comes from a page of this view: browsers report its origin, which other sites
 * cannot fake. Throws NotShown.
 */
export function requireSameOrigin(request: CgiRequest): void {
  const site = findHeader(request, 'Sec-Fetch-Site');
  const origin = findHeader(request, 'Origin');
  const host = findHeader(request, 'Host');
  const isOwn = origin !== undefined && host !== undefined && /^https?:\/\/(.+)$/.exec(origin)?.[1] === host;
  // Old browsers send no Sec-Fetch-Site, but every browser sends an Origin with a form.
  if (isOwn && (site === undefined || site === 'same-origin')) return;
  throw new NotShown(403, 'This form was sent from another site.');
}

/**
 * The fields of a form. Must be called before anything is awaited, because the body cannot be read
 * later. Throws NotShown.
 */
export function readForm(request: CgiRequest, body: Body): URLSearchParams {
  const type = request.env.CONTENT_TYPE?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/x-www-form-urlencoded') throw new NotShown(400, 'This is not a form of the view.');
  const buffer = Buffer.alloc(MAX_FORM_BYTES + 1);
  let length = 0;
  for (let count = -1; count !== 0 && length < buffer.length; length += count)
    count = body.read(buffer.subarray(length));
  if (length > MAX_FORM_BYTES) throw new NotShown(400, 'This form is too long.');
  return new URLSearchParams(buffer.toString('utf8', 0, length));
}

/** The purpose of a token. */
export interface Purpose {
  user: string;
  act: ActName;
  /** The job or assignment, in the form of subjectOf(). */
  subject: string;
}

/** A token for one form: the id of its future request, with a proof that this view made it. */
export function makeToken(place: ActPlace, purpose: Purpose, now = Date.now()): string {
  const id = makeActId(purpose.subject, now);
  return `${id}.${sign(place, purpose, id).toString('hex')}`;
}

/** The id in a token. Throws NotShown for one with another purpose, and for one that is too old. */
export function openToken(place: ActPlace, purpose: Purpose, token: string, now = Date.now()): string {
  const [id = '', given = ''] = token.split('.');
  const { at } = parseActId(id) ?? {};
  const isOurs =
    at !== undefined &&
    /^[0-9a-f]{64}$/.test(given) &&
    timingSafeEqual(Buffer.from(given, 'hex'), sign(place, purpose, id));
  if (!isOurs) throw new NotShown(403, 'This form was not made for you.');
  if (at < now - FORM_LIFETIME_MS) throw new NotShown(403, 'This form is too old: load its page again.');
  return id;
}

function sign({ secret }: ActPlace, { user, act, subject }: Purpose, id: string): Buffer {
  return createHmac('sha256', readSecret(secret))
    .update(JSON.stringify([user, act, subject, id]))
    .digest();
}

const secrets = new Map<string, Buffer>();

/** Reads the secret, or makes it if there is none. */
function readSecret(path: string): Buffer {
  let secret = secrets.get(path);
  if (!secret) {
    secret = findSecret(path) ?? makeSecret(path);
    secrets.set(path, secret);
  }
  return secret;
}

function findSecret(path: string): Buffer | undefined {
  try {
    const secret = readFileSync(path);
    return secret.length === SECRET_BYTES ? secret : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Makes the secret. When two processes make one at once, the second uses that of the first. */
function makeSecret(path: string): Buffer {
  const unfinished = `${path}.${randomBytes(6).toString('hex')}`;
  writeNew(unfinished, randomBytes(SECRET_BYTES));
  renameSync(unfinished, path);
  return findSecret(path) ?? Buffer.alloc(0);
}

/** Writes a request to the inbox, completely or not at all. Throws NotShown when too many wait. */
export function sendRequest({ inbox }: ActPlace, id: string, request: ActRequest): void {
  if (readdirSync(inbox).length >= MAX_WAITING)
    throw new NotShown(403, 'Too many acts are waiting: webjobctl acts does not seem to run.');
  const unfinished = join(inbox, `.${id}.new`);
  writeNew(unfinished, Buffer.from(formatRequest(request)));
  renameSync(unfinished, join(inbox, actFile(id)));
  syncFolder(dirname(unfinished));
}

function writeNew(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeAll(fd, bytes);
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
}
