// Raw requests of the deployment tests, from any loopback address, and to several servers of one
// test.
import { connect } from 'node:net';
import { parseAnswer, type StrictAnswer } from './strict-client.ts';

export interface Job {
  clientId?: string;
  password?: string;
  command?: string;
  /** Further header lines. */
  headers?: string[];
  script?: string;
}

function formatHead(method: 'GET' | 'PUT', more: string, length: number, job: Job): string {
  const { clientId = 'client1', password = 'foo', command = 'host.sh', script = '/webjob/nph-webjob.cgi' } = job;
  const query = `VERSION=webjob+1.4.0+ssl+32+bit&SYSTEM=x86_64+Linux+6&CLIENTID=${clientId}&FILENAME=${command}${more}`;
  const lines = [
    `${method} ${script}?${query} HTTP/1.1`,
    'Host: webjob.example.com:80',
    'Content-Type: application/octet-stream',
    `Content-Length: ${length}`,
    `Authorization: Basic ${Buffer.from(`${clientId}:${password}`).toString('base64')}`,
    ...(job.headers ?? []),
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** The header of a GET as a C client sends it. */
export function getHead(job: Job = {}): string {
  return formatHead('GET', '', 0, job);
}

/** The header of a PUT whose body is `length` bytes of stdout. */
export function putHead(length: number, job: Job = {}, runType = 'snapshot'): string {
  const more = `&RUNTYPE=${runType}&STDOUT_LENGTH=${length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return formatHead('PUT', more, length, job);
}

/** Sends a small request from `localAddress` and parses the answer as a strict client would. */
export async function ask(port: number, request: string, localAddress = '127.0.0.1'): Promise<StrictAnswer> {
  const bytes = await new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect({ host: '127.0.0.1', port, localAddress });
    socket.setTimeout(60_000, () => socket.destroy(new Error('no answer in time')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('end', () => resolve(Buffer.concat(chunks)));
    socket.write(Buffer.from(request, 'latin1'));
  });
  return parseAnswer(bytes);
}

/**
 * Whether an httpd serves there; one that rejects its configuration accepts connections for a
 * moment too.
 */
export function isServing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.0\r\n\r\n'));
    socket.setTimeout(5_000, () => socket.destroy());
    socket.once('data', () => {
      resolve(true);
      socket.destroy();
    });
    socket.on('error', () => {}).on('close', () => resolve(false));
  });
}
