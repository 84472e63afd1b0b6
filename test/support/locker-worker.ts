// A persistent worker that the sites of one test process share, so that a request does not cost the
// start of Node. For tests of the contents of a locker; the CGI itself is tested where it is
// started as CGI.
import { type Resident, startResident } from '../../scripts/resident.ts';
import { makeSite } from '../../scripts/site.ts';
import { environmentOf, parseRawRequest } from './bare.ts';
import { askFastCgi } from './fastcgi-client.ts';
import type { StrictAnswer } from './strict-client.ts';

/** Seconds without a request after which a worker ends whose test process was killed. */
const IDLE_SECONDS = 300;

let worker: Promise<Resident> | undefined;

async function start(): Promise<Resident> {
  // Only its programs and its socket are used, because every request names the settings of its own
  // site.
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
 * Sends a whole raw request to the worker, with additions to its environment; bytes are latin1.
 * Throws Error unless the answer has the length that it announces.
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

/** The text of which formatPairs() makes these bytes. Throws RangeError when there is none. */
function decode(bytes: string): string {
  const text = Buffer.from(bytes, 'latin1').toString();
  if (Buffer.from(text).toString('latin1') !== bytes) throw new RangeError(`no UTF-8: ${JSON.stringify(bytes)}`);
  return text;
}
