// The load on the peers: bench/load.pl, with the requests of a WebJob client.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

/** A request. */
export interface Operation {
  name: string;
  method: 'GET' | 'PUT';
  /** The size of the answer to a GET, or of the upload of a PUT. */
  bytes: number;
}

/** The server that is asked. */
export interface Target {
  name: string;
  port: number;
  /** The path of the URL. */
  path: string;
}

/** The results of several clients over some time. */
export interface Load {
  milliseconds: number[];
  seconds: number;
}

const SCRIPT = join(import.meta.dirname, 'load.pl');
const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=kilobyte';

/**
 * Runs concurrent clients that send one request after another for some time. Rejects for any answer
 * but 200, and for an incomplete one.
 */
export async function askTogether(target: Target, operation: Operation, clients: number, ms: number): Promise<Load> {
  const { method, bytes } = operation;
  const [sent, expected] = method === 'PUT' ? [bytes, 0] : [0, bytes];
  const child = spawn('perl', [SCRIPT, target.port, clients, ms / 1000, sent, expected].map(String));
  child.stdin.end(formatHead(target, operation));
  const [said, complaints] = await Promise.all([text(child.stdout), text(child.stderr)]);
  if (complaints !== '') throw new Error(`${target.name}, ${operation.name}: ${complaints.trimEnd()}`);
  const milliseconds = said.trimEnd().split('\n').map(Number);
  return { seconds: milliseconds.pop() ?? Number.NaN, milliseconds };
}

function formatHead({ port, path }: Target, { method, bytes }: Operation): string {
  const put = `&RUNTYPE=snapshot&STDOUT_LENGTH=${bytes}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return [
    `${method} ${path}?${QUERY}${method === 'PUT' ? put : ''} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    `Authorization: Basic ${btoa('client1:foo')}`,
    `Content-Length: ${method === 'PUT' ? bytes : 0}`,
    ...(method === 'PUT' ? ['Job-Id: @JOB@'] : []),
    'Connection: close\r\n\r\n',
  ].join('\r\n');
}
