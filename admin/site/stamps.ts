// RFC 3161 time stamps on checkpoints: they prove to anyone who trusts the authority that a
// checkpoint existed at a time. openssl makes the request and checks the response, as a recipient
// can do too.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode, replaceFile } from '../../cli/files.ts';
import { safeLine } from '../../cli/output.ts';
import { type KeptCheckpoint, readCheckpointFile } from './logs.ts';
import { askProgram, runProgram, withPrivateUmask } from './programs.ts';
import { keepFolder } from './site-lock.ts';

/** A response has some kilobytes, with all of its certificates. */
const MAX_ANSWER_BYTES = 1024 * 1024;
const TIME_LIMIT_MS = 60_000;

/**
 * A time stamp request for a text, in DER: with its SHA-256, a nonce, and a request for the
 * authority's certificate.
 */
export function makeStampRequest(text: string): Buffer {
  return withFiles({ text }, ({ text: path, folder }) => {
    const out = join(folder, 'request');
    runProgram('openssl', ['ts', '-query', '-data', path, '-sha256', '-cert', '-out', out]);
    return readFileSync(out);
  });
}

/** Sends a request to an authority (RFC 3161, section 3.4). Throws Failure `failed`. */
export async function askAuthority(url: string, request: Buffer): Promise<Buffer> {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      body: new Uint8Array(request),
      signal: AbortSignal.timeout(TIME_LIMIT_MS),
      headers: { 'Content-Type': 'application/timestamp-query', Accept: 'application/timestamp-reply' },
    });
    if (!answer.ok) throw new Failure('failed', safeLine(`${url}: ${answer.status} ${answer.statusText}`));
    return await readBounded(url, answer);
  } catch (error) {
    if (error instanceof Failure) throw error;
    // The message of fetch only says that it failed; the cause has the reason.
    const { message, cause } = error as Error;
    throw new Failure('failed', safeLine(`${url}: ${cause instanceof Error ? cause.message || cause.name : message}`));
  }
}

async function readBounded(url: string, answer: Response): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of answer.body ?? []) {
    parts.push(part);
    size += part.length;
    if (size > MAX_ANSWER_BYTES) throw new Failure('failed', safeLine(`${url}: more than ${MAX_ANSWER_BYTES} bytes`));
  }
  return Buffer.concat(parts);
}

export interface StampTrust {
  /** The certificate of the authority's CA, in PEM. */
  ca: string;
  /** The request, if the response must belong to it. */
  request?: Buffer | undefined;
}

/**
 * The time at which the text existed according to the time stamp, which is verified as of that
 * time: it remains valid after the authority's certificate ends. Throws Failure
 * `findings` for a response that is malformed, for another text, or from another authority.
 */
export function checkStamp(answer: Buffer, text: string, { ca, request }: StampTrust): Date {
  return withFiles({ answer, text, request: request ?? '' }, (paths) => {
    const { status, stdout, stderr } = askProgram('openssl', ['ts', '-reply', '-in', paths.answer, '-text']);
    if (status !== 0) throw new Failure('findings', `it is not an RFC 3161 response: ${reason(stderr)}`);
    const state = /^Status: (.*)$/m.exec(stdout)?.[1] ?? '';
    if (!/^Granted/.test(state))
      throw new Failure('findings', safeLine(`the authority has not stamped it: ${state} ${why(stdout)}`.trimEnd()));
    const time = new Date(/^Time stamp: (.*)$/m.exec(stdout)?.[1] ?? '');
    if (Number.isNaN(time.getTime())) throw new Failure('findings', 'the response contains no time');
    const at = ['-attime', String(Math.floor(time.getTime() / 1000))];
    const questions = [['-data', paths.text], ...(request ? [['-queryfile', paths.request]] : [])];
    for (const question of questions) {
      const words = ['ts', '-verify', ...question, '-in', paths.answer, '-CAfile', ca, ...at];
      const checked = askProgram('openssl', words);
      if (checked.status !== 0 || !/^Verification: OK$/m.test(checked.stdout))
        throw new Failure('findings', `the time stamp is not valid: ${reason(`${checked.stdout}${checked.stderr}`)}`);
    }
    return time;
  });
}

/** The reasons in openssl's error lines. */
function reason(text: string): string {
  const parts = [...text.matchAll(/^[0-9A-F]+:error:[^:]*:[^:]*:[^:]*:([^:]+):/gm)].map(([, part = '']) => part);
  return safeLine(parts.length > 0 ? [...new Set(parts)].join(', ') : (text.trim().split('\n').at(-1) ?? ''));
}

function why(text: string): string {
  const found = [...text.matchAll(/^(?:Status description|Failure info): (.*)$/gm)].map(([, part = '']) => part);
  return found.filter((part) => part !== 'unspecified').join(', ');
}

/** Runs `work` with private files of these contents, which are removed afterwards. */
function withFiles<Name extends string, Type>(
  contents: Record<Name, string | Buffer>,
  work: (paths: Record<Name | 'folder', string>) => Type,
): Type {
  const folder = withPrivateUmask(() => mkdtempSync(join(tmpdir(), 'webjob-stamp-')));
  try {
    const paths = { folder } as Record<Name | 'folder', string>;
    for (const [name, content] of Object.entries<string | Buffer>(contents)) {
      paths[name as Name] = join(folder, name);
      writeFileSync(join(folder, name), content);
    }
    return work(paths);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The directory of the time stamps of a server's record, each beside its checkpoint. */
function stampsFolder(settings: ServerSettings, serverId: string): string {
  return join(keepFolder(settings), `custody-timestamps.${serverId}`);
}

/**
 * Stores a time stamp, which is on disk when this returns; the files get its time. Returns its
 * path. Only for root.
 */
export function keepStamp(
  settings: ServerSettings,
  serverId: string,
  { text, size }: KeptCheckpoint,
  answer: Buffer,
  time: Date,
): string {
  const folder = stampsFolder(settings, serverId);
  makeFolder(folder);
  const base = join(folder, `${size}-${time.toISOString().replace(/[-:]|\.\d+/g, '')}`);
  replaceFile(`${base}.checkpoint`, text, { mode: 0o644 });
  replaceFile(`${base}.tsr`, answer, { mode: 0o644 });
  for (const end of ['checkpoint', 'tsr']) utimesSync(`${base}.${end}`, time, time);
  return `${base}.tsr`;
}

/**
 * When the newest time stamp of a server's record was made; undefined when there is none, or it is
 * not visible to this user.
 */
export function newestStamp(settings: ServerSettings, serverId: string): Date | undefined {
  const folder = stampsFolder(settings, serverId);
  try {
    const times = readdirSync(folder)
      .filter((name) => name.endsWith('.tsr'))
      .map((name) => statSync(join(folder, name)).mtimeMs);
    return times.length > 0 ? new Date(Math.max(...times)) : undefined;
  } catch {
    return undefined;
  }
}

/** A stored time stamp and its checkpoint. */
export interface KeptStamp {
  /** The common name of its files without suffix: `12-20261124T061240Z`. */
  name: string;
  checkpoint: KeptCheckpoint;
  answer: Buffer;
}

/**
 * All stored time stamps of a server's record, the one of the smallest checkpoint first. Throws
 * Failure `failed`.
 */
export function readStamps(settings: ServerSettings, serverId: string): KeptStamp[] {
  const folder = stampsFolder(settings, serverId);
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw new Failure('failed', `${folder} cannot be read: ${errorCode(error)}`, undefined, { cause: error });
  }
  return names
    .flatMap((file): KeptStamp[] => {
      const name = file.endsWith('.tsr') ? file.slice(0, -'.tsr'.length) : undefined;
      if (name === undefined || !names.includes(`${name}.checkpoint`)) return [];
      const [checkpoint] = readCheckpointFile(join(folder, `${name}.checkpoint`));
      return checkpoint ? [{ name, checkpoint, answer: readFileSync(join(folder, file)) }] : [];
    })
    .sort((a, b) => a.checkpoint.size - b.checkpoint.size || (a.name < b.name ? -1 : 1));
}
