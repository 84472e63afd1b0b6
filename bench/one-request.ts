// The CPU time of one request to a CGI, started as httpd would. Needs bash.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { formatGetQuery, formatPutQuery } from 'webjob-protocol';
import type { Site } from '../scripts/site.ts';
import { KILOBYTE } from './peers.ts';

/** Prints the user and system time of a script, whose answer goes to a file. */
const TIMED = 'TIMEFORMAT="%3U %3S"; time "$0" < "$1" > "$2" 2>&1';

/** One request to a CGI. */
export interface TimedRequest {
  /** The name in errors for an answer other than 200. */
  name: string;
  script: string;
  method: 'GET' | 'PUT';
  jobId: string;
  /** The command that a GET asks for; by default host.sh. */
  fileName?: string;
}

/**
 * Runs the script as httpd would; returns the CPU time in milliseconds. Throws Error for any answer
 * but 200.
 */
export function timeRequest(site: Site, { name, script, method, jobId, fileName }: TimedRequest): number {
  const [body, answer] = [join(site.root, 'body'), join(site.root, 'answer')];
  const size = method === 'PUT' ? KILOBYTE : 0;
  writeFileSync(body, Buffer.alloc(size, 'x'));
  const env = environmentOf(site, method, size, jobId, fileName);
  const { stderr } = spawnSync('bash', ['--norc', '-c', TIMED, script, body, answer], { env, encoding: 'utf8' });
  const said = readFileSync(answer, 'latin1');
  const [user = Number.NaN, system = Number.NaN] = stderr.trim().split(' ').map(Number);
  if (!said.startsWith('HTTP/1.1 200 ') || Number.isNaN(user + system)) throw new Error(`${name}: ${said}${stderr}`);
  return (user + system) * 1000;
}

/** The variables of RFC 3875 that the script reads. */
function environmentOf(
  site: Site,
  method: string,
  size: number,
  jobId: string,
  fileName = 'host.sh',
): NodeJS.ProcessEnv {
  const query = { version: 'webjob 1.4.0', system: 'bench', clientId: 'client1', fileName };
  const put = { ...query, runType: 'snapshot', outLength: size, errLength: 0, envLength: 0 } as const;
  return {
    PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
    WEBJOB_PROPERTIES_FILE: site.propertiesFile,
    GATEWAY_INTERFACE: 'CGI/1.1',
    REQUEST_METHOD: method,
    QUERY_STRING: method === 'PUT' ? formatPutQuery(put) : formatGetQuery(query),
    CONTENT_LENGTH: String(size),
    HTTP_JOB_ID: jobId,
    REMOTE_ADDR: '127.0.0.1',
  };
}

/** The mean of the middle half: times are whole milliseconds, so a median would be too coarse. */
export function middle(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.slice(Math.floor(sorted.length / 4), Math.ceil((sorted.length * 3) / 4));
  return half.reduce((sum, value) => sum + value, 0) / half.length;
}
