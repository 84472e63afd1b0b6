// Uploads of random bytes for the locker's tests, and the one check of what a locker contains of
// them.
import { createHash, randomBytes } from 'node:crypto';
import { chownSync, existsSync, lstatSync, mkdirSync, readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { formatReady, groupPaths, STREAMS, type StreamName } from '../../cgi/locker/index.ts';
import { makeSite, type Site } from '../../scripts/site.ts';
import { type BareOptions, parseRawRequest, type RawRequest } from './bare.ts';
import { findWebUser } from './tree.ts';

export interface Upload {
  name: string;
  jobId: string;
  streams: Record<StreamName, Buffer>;
}

/**
 * A site whose uploads are named by client and command only, so that a test knows where to look.
 */
export function makeLockerSite(settings: Record<string, string> = {}): Site {
  return makeSite({ settings: { PutNameFormat: '%cid_%cmd', ...settings } });
}

/** How to run the script at a site. */
export function bareOptions(site: Site, more: Partial<BareOptions> = {}): BareOptions {
  return { settingsFile: site.propertiesFile, user: findWebUser(), ...more };
}

/** A directory outside of the site's tree to which its scripts may write. */
export function makeScratch(site: Site, name: string): string {
  const path = join(site.root, name);
  mkdirSync(path, { recursive: true });
  const user = findWebUser();
  if (user) chownSync(path, user.uid, user.gid);
  return path;
}

export function makeUpload(name: string, sizes: Record<StreamName, number>): Upload {
  return {
    name,
    jobId: `server_1_1085355126_${name}`,
    streams: { out: randomBytes(sizes.out), err: randomBytes(sizes.err), env: randomBytes(sizes.env) },
  };
}

/** The PUT of an upload as client1, with its body. */
export function rawPut({ name, jobId, streams }: Upload): Buffer {
  const body = Buffer.concat(STREAMS.map((stream) => streams[stream]));
  const query = [
    `VERSION=webjob+1.4.0&SYSTEM=x86_64+Linux&CLIENTID=client1&FILENAME=${name}&RUNTYPE=snapshot`,
    `STDOUT_LENGTH=${streams.out.length}&STDERR_LENGTH=${streams.err.length}&STDENV_LENGTH=${streams.env.length}`,
  ].join('&');
  const head = [
    `PUT /webjob/nph-webjob.cgi?${query} HTTP/1.1`,
    `Authorization: Basic ${Buffer.from('client1:foo').toString('base64')}`,
    `Job-Id: ${jobId}`,
    `Content-Length: ${body.length}`,
  ];
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), body]);
}

export function parsePut(upload: Upload): RawRequest {
  return parseRawRequest(rawPut(upload));
}

/** The GET of the article's host.sh as client1. */
export const GET_HOST_SH = Buffer.from(
  [
    'GET /webjob/nph-webjob.cgi?VERSION=webjob+1.4.0&SYSTEM=x86_64+Linux&CLIENTID=client1&FILENAME=host.sh HTTP/1.1',
    `Authorization: Basic ${Buffer.from('client1:foo').toString('base64')}`,
    'Content-Length: 0\r\n\r\n',
  ].join('\r\n'),
);

/** The path of the upload at the site, without an extension. */
export function baseOf(site: Site, name: string): string {
  return join(site.incoming, `client1_${name}`);
}

/** The status of an answer; undefined when there is none. */
export function statusOf(answer: Buffer): number | undefined {
  const found = /^HTTP\/1\.1 (\d{3}) /.exec(answer.toString('latin1'))?.[1];
  return found === undefined ? undefined : Number(found);
}

/** The state of an upload. `broken` must never occur: announced, but not what was sent. */
export type Progress = 'nothing' | 'lock only' | 'in out' | 'in err' | 'in env' | 'all streams' | 'complete' | 'broken';

/** The state of an upload at `base`. */
export function judgeGroup(base: string, upload: Upload): Progress {
  const paths = groupPaths(base);
  if (existsSync(paths.rdy)) return isWhole(base, upload) ? 'complete' : 'broken';
  const partial = [...STREAMS].reverse().find((name) => existsSync(paths[name]));
  if (partial === undefined) return existsSync(paths.lck) ? 'lock only' : 'nothing';
  return partial === 'env' && STREAMS.every((name) => holds(paths[name], upload.streams[name]))
    ? 'all streams'
    : `in ${partial}`;
}

/**
 * Whether the upload is announced under its job id, every stream has what was sent, and there is no
 * lock.
 */
export function isWhole(base: string, upload: Upload): boolean {
  return isAnnounced(base, upload) && !existsSync(groupPaths(base).lck);
}

/** Whether the upload is complete, even while another is about to replace it. */
export function isAnnounced(base: string, upload: Upload): boolean {
  const paths = groupPaths(base);
  return (
    STREAMS.every((name) => holds(paths[name], upload.streams[name])) &&
    holds(paths.rdy, Buffer.from(formatReady(upload.jobId)))
  );
}

/** Whether there is a regular file with exactly these bytes. */
export function holds(path: string, bytes: Uint8Array): boolean {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isFile()) return false;
  return digest(readFileSync(path)) === digest(bytes);
}

export function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Makes existing files look untouched for longer than a lock is valid. */
export function age(paths: readonly string[], seconds = 3601): void {
  const then = Date.now() / 1000 - seconds;
  for (const path of paths) if (existsSync(path)) utimesSync(path, then, then);
}
