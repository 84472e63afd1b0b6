// A client with a fake server, and its uploads, split by their announced lengths.
import { chownSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseRecord } from 'webjob-protocol';
import { type Client, makeClient } from './client-job.ts';
import { afterBody, type Behaviour, type FakeServer, formatAnswer, splitRequest, startFake } from './client-server.ts';
import { mountTmpfs } from './locker-tmpfs.ts';

export const JOB_ID = 'server_1_1085355126_00723';
export const TAKES: Behaviour = afterBody(formatAnswer());
export const REFUSES: Behaviour = afterBody(formatAnswer('', '500 Internal Server Error'));

/** A complete PUT. */
export interface Upload {
  head: string;
  out: Buffer;
  err: Buffer;
  env: string;
  fields: ReturnType<typeof parseRecord>['fields'];
}

export interface Home {
  client: Client;
  fake: FakeServer;
  spool: string;
  /** Settings that override those for the server; TempDirectory and SpoolDirectory are empty. */
  reset(controls?: Record<string, string>): void;
  /** The answer to every GET from now on. */
  serve(script: string): void;
  /** The complete uploads that arrived while `action` ran. */
  uploadsOf(action: () => Promise<unknown>): Promise<Upload[]>;
  close(): Promise<void>;
}

/** A client with a server that serves every program as `#!/bin/sh` and a script. */
export async function startHome(): Promise<Home> {
  const client = makeClient();
  const fake = await startFake();
  const spool = join(client.root, 'spool');
  const serve = (script: string): void => {
    fake.get = (socket) => socket.end(formatAnswer(`#!/bin/sh\n${script}\n`, '200 OK', `Job-Id: ${JOB_ID}\r\n`));
  };
  return {
    client,
    fake,
    spool,
    serve,
    reset: (controls = {}) => {
      rmSync(spool, { recursive: true, force: true });
      for (const name of readdirSync(client.temp)) rmSync(join(client.temp, name), { recursive: true });
      client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, ...controls });
      fake.put = TAKES;
    },
    uploadsOf: async (action) => {
      const earlier = fake.requests().length;
      await action();
      return fake.requests().slice(earlier).flatMap(takeApart);
    },
    close: async () => {
      await fake.close();
      client.remove();
    },
  };
}

/** Empty for a GET, and for a PUT that broke off. */
function takeApart(request: Buffer): Upload[] {
  const { head, body } = splitRequest(request);
  const lengthOf = (stream: string): number => Number(new RegExp(`&${stream}_LENGTH=(\\d+)`).exec(head)?.[1]);
  const [out, err, env] = ['STDOUT', 'STDERR', 'STDENV'].map(lengthOf) as [number, number, number];
  if (!head.startsWith('PUT ') || body.length !== out + err + env) return [];
  const text = body.toString('utf8', out + err);
  const { fields } = parseRecord(text);
  return [{ head, out: body.subarray(0, out), err: body.subarray(out, out + err), env: text, fields }];
}

/** Mounts a tmpfs that belongs to the user who runs the tests. */
export function mountDisk(path: string, limits: string): void {
  mountTmpfs(path, limits);
  chownSync(path, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
}
