// The files that the view and `webjobctl acts` exchange: only the view writes requests, into the inbox, and only root writes answers.
// Both know this format, and neither trusts what it reads.
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { STREAMS, type StreamName } from 'webjob-locker';
import { isClientId, isJobId } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/controls.ts';
import { Failure } from '../../cli/failure.ts';
import { HIDDEN_CHARACTERS } from '../../cli/output.ts';
import { parseNote } from './note.ts';

export const ACT_NAMES = ['verify', 'hold', 'release', 'note', 'download', 'package'] as const;
export type ActName = (typeof ACT_NAMES)[number];

/** Those that take words: the note, or the reason. */
export const ACTS_WITH_TEXT: readonly ActName[] = ['hold', 'release', 'note'];

export interface ActRequest {
  act: ActName;
  job: string;
  /** Whose job it is: a client can send the id of another's. */
  client: string | undefined;
  /** The reader who asked, by the user name from httpd. */
  user: string;
  /** Of those that take words. */
  text: string | undefined;
  /** Of a download. */
  stream: StreamName | undefined;
}

export interface ActAnswer extends ActRequest {
  id: string;
  /** ISO 8601. */
  askedAt: string;
  answeredAt: string;
  /** `started` is seen while it is done, and after a kill. */
  state: 'started' | 'done' | 'failed';
  /** What came of it. */
  words: string;
}

/** A request is a few hundred bytes. */
export const MAX_REQUEST_BYTES = 8192;
/** So old a request is not done any more, and so old an answer is removed with what belongs to it. */
export const ACT_LIFETIME_MS = 24 * 3_600_000;

/** The folders of a site's acts. The one above both is root's. */
export function actFolders(settings: Pick<ServerSettings, 'configDirectory'>): { inbox: string; answers: string } {
  const folder = join(settings.configDirectory, 'webjob-acts');
  return { inbox: join(folder, 'inbox'), answers: join(folder, 'answers') };
}

const ID = /^(\d{13})-([0-9a-f]{16})-([0-9a-f]{32})$/;

/** The part of an id by which those of one job are found without reading them. */
export function tagOf(job: string): string {
  return createHash('sha256').update(job).digest('hex').slice(0, 16);
}

/** A new name for a request: when, for which job, and what nobody guesses. */
export function makeActId(job: string, now: number): string {
  return `${String(now).padStart(13, '0')}-${tagOf(job)}-${randomBytes(16).toString('hex')}`;
}

/** Undefined when the text is not an act id. */
export function parseActId(id: string): { at: number; tag: string } | undefined {
  const [, at, tag = ''] = ID.exec(id) ?? [];
  return at === undefined ? undefined : { at: Number(at), tag };
}

/** The file of a request or of an answer. */
export const actFile = (id: string): string => `${id}.json`;

export function formatRequest({ act, job, client, user, text, stream }: ActRequest): string {
  return `${JSON.stringify({ act, job, client, user, text, stream })}\n`;
}

/** Throws SyntaxError, which says what is wrong, for anything but a request. */
export function parseRequest(text: string): ActRequest {
  const { act, job, client, user, text: words, stream, ...others } = parseObject(text);
  if (Object.keys(others).length > 0) throw new SyntaxError('it has fields that nobody knows');
  const name = ACT_NAMES.find((known) => known === act);
  if (!name) throw new SyntaxError('its act is unknown');
  if (typeof job !== 'string' || !isJobId(job)) throw new SyntaxError('its job is not a job id');
  if (client !== undefined && (typeof client !== 'string' || !isClientId(client)))
    throw new SyntaxError('its client is not a client id');
  if (!isUser(user)) throw new SyntaxError('its user is not a user name');
  const found = STREAMS.find((known) => known === stream);
  if ((stream !== undefined) !== (name === 'download') || found !== stream)
    throw new SyntaxError('its stream is unknown');
  if ((words !== undefined) !== ACTS_WITH_TEXT.includes(name)) throw new SyntaxError('its text is out of place');
  return { act: name, job, client, user, text: words === undefined ? undefined : parseWords(words), stream: found };
}

/** A name as httpd gives it: one line, nothing hidden. */
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

/** What root wrote. Throws SyntaxError. */
export function parseAnswer(text: string): ActAnswer {
  return parseObject(text) as unknown as ActAnswer;
}
