// Clients that arrive at a server, each at its own moment: a GET and a PUT of 1 KiB, repeated until
// they are answered 200.
import { createHash } from 'node:crypto';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const TRIES = 30;
const PAUSE_MS = 1_000;
const TIME_LIMIT_MS = 60_000;
const PUT_FIELDS = '&RUNTYPE=snapshot&STDOUT_LENGTH=1024&STDERR_LENGTH=0&STDENV_LENGTH=0';
/** Every client logs in as this one. */
const CREDENTIALS = 'client1:foo';

export interface Tally {
  /** Counts by status, or by the code of a broken connection. */
  answers: Map<string, number>;
  retries: number;
  /** From the arrival to the last byte, including the delays before retries. */
  getMilliseconds: number[];
  putMilliseconds: number[];
  jobIds: string[];
  /** Numbers of clients whose PUT was answered 200, by job id. */
  acknowledged: Map<string, number>;
  gaveUp: number;
  /** From the first arrival to the last answer. */
  elapsedSeconds: number;
}

export function makeTally(): Tally {
  return {
    answers: new Map(),
    retries: 0,
    getMilliseconds: [],
    putMilliseconds: [],
    jobIds: [],
    acknowledged: new Map(),
    gaveUp: 0,
    elapsedSeconds: 0,
  };
}

interface Reply {
  status: number;
  jobId: string;
}

/** Limits the number of concurrent requests. */
export class Gate {
  readonly #waiting: (() => void)[] = [];
  #free: number;
  constructor(free: number) {
    this.#free = free;
  }
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

/** The upload of a client: 1 KiB that is different for every number. */
export function bodyOf(client: number): Buffer {
  const digest = createHash('sha512').update(String(client)).digest('hex');
  return Buffer.from(`${String(client).padStart(10)} ${digest.repeat(8)}`.slice(0, 1024));
}

interface Request {
  port: number;
  clientId: string;
  method: 'GET' | 'PUT';
  body: Buffer;
  jobId?: string;
}

function ask({ port, clientId, method, body, jobId }: Request): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const query = `VERSION=webjob+1.4.0&SYSTEM=herd&CLIENTID=${clientId}&FILENAME=host.sh`;
    const asked = request({
      host: '127.0.0.1',
      port,
      method,
      path: `/webjob/nph-webjob.cgi?${query}${method === 'PUT' ? PUT_FIELDS : ''}`,
      agent: false,
      auth: CREDENTIALS,
      timeout: TIME_LIMIT_MS,
      headers: { 'Content-Length': body.length, ...(jobId !== undefined && { 'Job-Id': jobId }) },
    });
    asked.on('timeout', () => asked.destroy(Object.assign(new Error('no answer'), { code: 'no answer' })));
    asked.on('error', reject).on('response', (answer) => {
      answer.on('error', reject).on('end', () => {
        resolve({ status: answer.statusCode ?? 0, jobId: String(answer.headers['job-id'] ?? '') });
      });
      answer.resume();
    });
    asked.end(body);
  });
}

/** Repeats a request until it is answered 200; undefined when the client gives up. */
async function insist(tally: Tally, gate: Gate, send: () => Promise<Reply>): Promise<Reply | undefined> {
  for (let tried = 0; tried < TRIES; tried++) {
    if (tried > 0) {
      tally.retries += 1;
      await sleep(PAUSE_MS * (0.5 + Math.random()));
    }
    const reply = await gate.pass(send).catch((error: NodeJS.ErrnoException) => error);
    const outcome = reply instanceof Error ? String(reply.code ?? reply.message) : String(reply.status);
    tally.answers.set(outcome, (tally.answers.get(outcome) ?? 0) + 1);
    if (!(reply instanceof Error) && reply.status === 200) return reply;
  }
  tally.gaveUp += 1;
  return undefined;
}

export interface Arrival {
  /** Differs for every arrival; the bytes of its upload depend on it. */
  number: number;
  clientId: string;
}

/** One job of a client, from its arrival to its last answer. */
export async function live({ number, clientId }: Arrival, tally: Tally, gate: Gate, port: number): Promise<void> {
  let start = performance.now();
  const got = await insist(tally, gate, () => ask({ port, clientId, method: 'GET', body: Buffer.alloc(0) }));
  if (!got) return;
  tally.getMilliseconds.push(performance.now() - start);
  tally.jobIds.push(got.jobId);
  start = performance.now();
  if (
    !(await insist(tally, gate, () => ask({ port, clientId, method: 'PUT', body: bodyOf(number), jobId: got.jobId })))
  )
    return;
  tally.putMilliseconds.push(performance.now() - start);
  tally.acknowledged.set(got.jobId, number);
}
