// A persistent worker that the sites of one test process share: what a request costs is then the request, and not the start of a Node.
// For tests of what is done with a locker; what the server does as CGI is for those that start it as CGI.
import { type Resident, startResident } from '../scripts/resident.ts';
import { makeSite } from '../scripts/site.ts';
import { environmentOf, parseRawRequest } from './bare.ts';
import { askFastCgi } from './fastcgi-client.ts';
import type { StrictAnswer } from './strict-client.ts';

/** A worker whose test process was killed ends after so long without a request. */
const IDLE_SECONDS = 300;

let worker: Promise<Resident> | undefined;

async function start(): Promise<Resident> {
  // Only its programs and its socket are used: every request names the settings of its own site.
  const site = makeSite({ resident: true });
  const started = await startResident(site, ['--idle', String(IDLE_SECONDS)]);
  started.unref();
  let isEnded = false;
  void started.ended.then(() => {
    isEnded = true;
    worker = undefined;
  });
  process.on('exit', () => {
    if (!isEnded) process.kill(started.pid, 'SIGKILL');
    site.remove();
  });
  return started;
}

/**
 * Sends a whole raw request to the worker; `environment` over what it says, bytes as latin1. Throws Error when it is not answered with the
 * length that it announces.
 */
export async function askWorker(
  raw: Buffer,
  settingsFile: string,
  environment: readonly (readonly [name: string, value: string])[] = [],
): Promise<StrictAnswer> {
  worker ??= start();
  const { socket, complaints } = await worker;
  const request = parseRawRequest(raw);
  const given = [...environmentOf(request), ['WEBJOB_PROPERTIES_FILE', settingsFile] as const, ...environment];
  const variables = Object.fromEntries(given.map(([name, value]) => [name, decode(value)]));
  const { status, reason, headers, body } = await askFastCgi(socket, variables, request.body);
  if (status === 0 || headers.get('content-length') !== String(body.length))
    throw new Error(`no whole answer: ${status} ${body.length} bytes: ${complaints()}`);
  return { status, reason, headers, body };
}

/** The text that formatPairs makes these bytes of again. Throws RangeError when there is none. */
function decode(bytes: string): string {
  const text = Buffer.from(bytes, 'latin1').toString();
  if (Buffer.from(text).toString('latin1') !== bytes) throw new RangeError(`no UTF-8: ${JSON.stringify(bytes)}`);
  return text;
}
