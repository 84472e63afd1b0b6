// The files that the view and `webjobctl acts` exchange: only the view writes requests to the
// inbox, and only root writes answers. Neither side trusts what it reads.
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { STREAMS, type StreamName } from 'webjob-locker';
import { isClientId, isJobId } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { HIDDEN_CHARACTERS } from '../../cli/output.ts';
import { parseNote } from './note.ts';

export const ACT_NAMES = ['verify', 'hold', 'release', 'note', 'download', 'package', 'pause', 'cancel'] as const;
export type ActName = (typeof ACT_NAMES)[number];

/** Acts with a text: the note, or the reason. */
export const ACTS_WITH_TEXT: readonly ActName[] = ['hold', 'release', 'note', 'pause', 'cancel'];

/**
 * Acts on an assignment. Each of them only stops something: resuming one would run programs on
 * clients for a reader whom root knows only from the view.
 */
export const ASSIGNMENT_ACTS: readonly ActName[] = ['pause', 'cancel'];

export interface ActRequest {
  act: ActName;
  /** The job; undefined for an act on an assignment. */
  job: string | undefined;
  /** The number of the assignment. */
  assignment?: string | undefined;
  /** The client of the job, because a client can send the id of another client's job. */
  client: string | undefined;
  /** The user name from httpd. */
  user: string;
  /** The text, for acts that have one. */
  text: string | undefined;
  /** The stream, for a download. */
  stream: StreamName | undefined;
}

export interface ActAnswer extends ActRequest {
  id: string;
  /** The time of the request, in ISO 8601. */
  askedAt: string;
  answeredAt: string;
  /** `started` is visible while the act is carried out, and after a kill. */
  state: 'started' | 'done' | 'failed';
  /** The result in words. */
  words: string;
}

/** A request has a few hundred bytes. */
export const MAX_REQUEST_BYTES = 8192;
/** An older request is no longer carried out, and an older answer is removed with its package. */
export const ACT_LIFETIME_MS = 24 * 3_600_000;

/** The directories of a site's acts. Their parent belongs to root. */
export function actFolders(settings: Pick<ServerSettings, 'configDirectory'>): { inbox: string; answers: string } {
  const folder = join(settings.configDirectory, 'webjob-acts');
  return { inbox: join(folder, 'inbox'), answers: join(folder, 'answers') };
}

const ID = /^(\d{13})-([0-9a-f]{16})-([0-9a-f]{32})$/;

/** Names the job or assignment of a request: a job id, or `assignment 7`. */
export function subjectOf({ job, assignment }: Pick<ActRequest, 'job' | 'assignment'>): string {
  return job ?? `assignment ${assignment}`;
}

/**
 * The part of an act id by which the acts on one job or assignment are found without reading them.
 */
export function tagOf(subject: string): string {
  return createHash('sha256').update(subject).digest('hex').slice(0, 16);
}

/** A new act id: the time, the job or assignment, and random bytes. */
export function makeActId(subject: string, now: number): string {
  return `${String(now).padStart(13, '0')}-${tagOf(subject)}-${randomBytes(16).toString('hex')}`;
}

/** Parses an act id; undefined for any other text. */
export function parseActId(id: string): { at: number; tag: string } | undefined {
  const [, at, tag = ''] = ID.exec(id) ?? [];
  return at === undefined ? undefined : { at: Number(at), tag };
}

/** The file of a request or an answer. */
export const actFile = (id: string): string => `${id}.json`;

export function formatRequest({ act, job, assignment, client, user, text, stream }: ActRequest): string {
  return `${JSON.stringify({ act, job, assignment, client, user, text, stream })}\n`;
}

/** Parses a request. Throws a SyntaxError that names the problem. */
export function parseRequest(text: string): ActRequest {
  const { act, job, assignment, client, user, text: words, stream, ...others } = parseObject(text);
  if (Object.keys(others).length > 0) throw new SyntaxError('it has unknown fields');
  const name = ACT_NAMES.find((known) => known === act);
  if (!name) throw new SyntaxError('its act is unknown');
  const isOnJob = !ASSIGNMENT_ACTS.includes(name);
  if (isOnJob ? !isText(job) || !isJobId(job) : job !== undefined) throw new SyntaxError('its job is not a job id');
  if (isOnJob ? assignment !== undefined : !isText(assignment) || !/^[1-9][0-9]{0,14}$/.test(assignment))
    throw new SyntaxError('its assignment is not a number');
  if (client !== undefined && (typeof client !== 'string' || !isClientId(client)))
    throw new SyntaxError('its client is not a client id');
  if (!isUser(user)) throw new SyntaxError('its user is not a user name');
  const found = STREAMS.find((known) => known === stream);
  if ((stream !== undefined) !== (name === 'download') || found !== stream)
    throw new SyntaxError('its stream is unknown');
  if ((words !== undefined) !== ACTS_WITH_TEXT.includes(name)) throw new SyntaxError('its text is not allowed');
  return {
    act: name,
    job: isOnJob ? String(job) : undefined,
    assignment: isOnJob ? undefined : String(assignment),
    client,
    user,
    text: words === undefined ? undefined : parseWords(words),
    stream: found,
  };
}

const isText = (value: unknown): value is string => typeof value === 'string';

/** Whether this is a user name as httpd passes it: one line of visible characters. */
export function isUser(user: unknown): user is string {
  return typeof user === 'string' && /^[^\t\n]{1,255}$/.test(user) && user.search(HIDDEN_CHARACTERS) < 0;
}

function parseWords(words: unknown): string {
  try {
    if (typeof words === 'string') return parseNote(words, 'its text');
  } catch (error) {
    if (error instanceof Failure) throw new SyntaxError(error.message);
    throw error;
  }
  throw new SyntaxError('its text is missing');
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new SyntaxError('it is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SyntaxError('it is not an object');
  return value as Record<string, unknown>;
}

export function formatAnswer(answer: ActAnswer): string {
  return `${JSON.stringify(answer)}\n`;
}

/** Parses an answer. Throws SyntaxError. */
export function parseAnswer(text: string): ActAnswer {
  return parseObject(text) as unknown as ActAnswer;
}
