// A worker of the view, or another FastCGI responder, as httpd would ask it, and its cost.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  formatBeginning,
  formatPairs,
  formatRecord,
  formatStream,
  RECORD_TYPES,
  RESPONDER_ROLE,
  RecordParser,
} from 'node-cgi-compat/responder';

export const VIEW = join(import.meta.dirname, '..', 'dist', 'webjob-view.cgi');
const TICK_MS = 10;

export interface Answer {
  milliseconds: number;
  body: Buffer;
}

/** Sends a request on a connection of its own, as httpd does. */
export function ask(socket: string, variables: Record<string, string>): Promise<Answer> {
  const startedAt = performance.now();
  const end = (type: number): Buffer => formatRecord({ type, requestId: 1, content: Buffer.alloc(0) });
  const request = Buffer.concat([
    formatRecord({
      type: RECORD_TYPES.beginRequest,
      requestId: 1,
      content: formatBeginning({ role: RESPONDER_ROLE, keepConnection: false }),
    }),
    ...formatStream(RECORD_TYPES.params, 1, formatPairs(Object.entries(variables))),
    end(RECORD_TYPES.params),
    end(RECORD_TYPES.stdin),
  ]);
  return new Promise((done, reject) => {
    const parser = new RecordParser();
    const pieces: Buffer[] = [];
    const peer = connect(socket, () => peer.write(request));
    peer.on('data', (bytes: Buffer) => {
      for (const { type, content } of parser.push(bytes))
        if (type === RECORD_TYPES.stdout) pieces.push(Buffer.from(content));
    });
    peer.on('error', reject).on('close', () => {
      const whole = Buffer.concat(pieces);
      const head = whole.indexOf('\r\n\r\n');
      if (!whole.toString('latin1', 0, 20).startsWith('Status: 200'))
        reject(new Error(`${variables.PATH_INFO}: ${whole.toString('utf8', 0, 200)}`));
      done({ milliseconds: performance.now() - startedAt, body: whole.subarray(head + 4) });
    });
  });
}

/** Processor time of all threads of a process so far, and of the programs that it ran. */
export function cpuMilliseconds({ pid }: ChildProcess): number {
  const threads = readdirSync(`/proc/${pid}/task`).map((id) =>
    Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, 'latin1').split(' ')[0]),
  );
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  const children = (Number(fields[13]) + Number(fields[14])) * TICK_MS;
  return threads.reduce((sum, nanoseconds) => sum + nanoseconds, 0) / 1e6 + children;
}

export const peakMegabytes = ({ pid }: ChildProcess): number =>
  Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024;

/** Starts a worker that listens on a socket, with the options of the shipped unit. */
export async function startWorker(program: string, socket: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, '--listen', socket], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { PATH: process.env.PATH, NODE_OPTIONS: '--max-old-space-size=56 --max-semi-space-size=4' },
  });
  while (!existsSync(socket)) await sleep(20);
  return child;
}
