// Requests as a WebJob client sends them, as cheaply as one process can: each on a connection of its own, until the server ends it. What is
// measured shares the machine with this.
import { connect } from 'node:net';

/** What is asked of a peer. */
export interface Operation {
  name: string;
  method: 'GET' | 'PUT';
  /** Of the answer to a GET, of the upload of a PUT. */
  bytes: number;
}

/** Who is asked. */
export interface Target {
  name: string;
  port: number;
  /** The path of the URL. */
  path: string;
}

/** What several clients saw in some time. */
export interface Load {
  milliseconds: number[];
  seconds: number;
}

const PIECE = Buffer.alloc(256 * 1024, 'webjob\n');
const TIME_LIMIT_MS = 600_000;
const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=kilobyte';

let count = 0;

/** One request; returns the milliseconds until the connection ended. Rejects for any answer but 200, and for one that is not whole. */
export function ask(target: Target, operation: Operation): Promise<number> {
  const { method, bytes } = operation;
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const socket = connect(target.port, '127.0.0.1');
    const answer: Buffer[] = [];
    socket.setTimeout(TIME_LIMIT_MS, () => socket.destroy(new Error('no answer')));
    socket.on('error', (error) => reject(new Error(`${target.name}, ${operation.name}: ${error.message}`)));
    socket.on('data', (piece: Buffer) => answer.push(piece));
    socket.on('end', () => {
      const milliseconds = performance.now() - startedAt;
      const problem = findProblem(Buffer.concat(answer), method === 'GET' ? bytes : 0);
      if (problem === undefined) resolve(milliseconds);
      else reject(new Error(`${target.name}, ${operation.name}: ${problem}`));
    });
    const head = formatHead(target, operation);
    let left = method === 'PUT' ? bytes : 0;
    if (left <= PIECE.length) {
      socket.write(left === 0 ? head : Buffer.concat([Buffer.from(head), PIECE.subarray(0, left)]));
      return;
    }
    socket.write(head);
    const send = (): void => {
      for (let isFree = true; isFree && left > 0; ) {
        const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
        left -= piece.length;
        isFree = socket.write(piece);
      }
      if (left > 0) socket.once('drain', send);
    };
    send();
  });
}

/** So many clients ask one request after the other for so long. */
export async function askTogether(target: Target, operation: Operation, clients: number, ms: number): Promise<Load> {
  const milliseconds: number[] = [];
  const startedAt = performance.now();
  const client = async (): Promise<void> => {
    do milliseconds.push(await ask(target, operation));
    while (performance.now() - startedAt < ms);
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { milliseconds, seconds: (performance.now() - startedAt) / 1000 };
}

function formatHead({ port, path }: Target, { method, bytes }: Operation): string {
  count += 1;
  const put = `&RUNTYPE=snapshot&STDOUT_LENGTH=${bytes}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return [
    `${method} ${path}?${QUERY}${method === 'PUT' ? put : ''} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    `Authorization: Basic ${btoa('client1:foo')}`,
    `Content-Length: ${method === 'PUT' ? bytes : 0}`,
    ...(method === 'PUT' ? [`Job-Id: bench_${process.pid}_${count}`] : []),
    'Connection: close\r\n\r\n',
  ].join('\r\n');
}

/** What is wrong with an answer; undefined for one of 200 that holds so many bytes. */
function findProblem(answer: Buffer, bytes: number): string | undefined {
  const end = answer.indexOf('\r\n\r\n');
  if (end < 0) return 'no answer';
  const status = answer.toString('latin1', 0, answer.indexOf('\r\n'));
  if (!status.startsWith('HTTP/1.1 200 ')) return status;
  const length = answer.length - end - 4;
  return length === bytes ? undefined : `${length} bytes in place of ${bytes}`;
}
