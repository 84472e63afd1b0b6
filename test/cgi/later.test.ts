// Handlers that return a promise: in a script, and in a persistent worker, which serves others
// meanwhile.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CgiRequest, CgiResponse } from 'node-cgi-compat';
import { createResponder, formatRecord, listenAt, RECORD_TYPES, type Responder } from 'node-cgi-compat/responder';
import { type Folder, makeFolder, LIBRARY as URL_OF_LIBRARY, until } from '../support/cgi-scripts.ts';
import { askFastCgi, formatRequest } from '../support/fastcgi-client.ts';

const LIBRARY = join(import.meta.dirname, '..', '..', 'cgi', 'node-cgi-compat', 'index.ts');
const folder = mkdtempSync(join(tmpdir(), 'webjob-later-'));
after(() => rmSync(folder, { recursive: true }));

const answer = (text: string, more: Partial<CgiResponse> = {}): CgiResponse => {
  const content = Buffer.from(text);
  return { status: 200, reason: 'OK', headers: [], contentLength: content.length, content, ...more };
};

describe('a script whose handler answers asynchronously', () => {
  let scripts: Folder;
  before(() => {
    scripts = makeFolder();
  });
  after(() => scripts.remove());

  it('has read its body, and ends with the answer', () => {
    const text = `import { serveScript } from '${URL_OF_LIBRARY}';
serveScript(async (request, body) => {
  const buffer = Buffer.alloc(9);
  const content = Buffer.from(buffer.toString('latin1', 0, body.read(buffer)).toUpperCase());
  await new Promise((resolve) => setTimeout(resolve, 20));
  return { status: 200, reason: 'OK', headers: [], contentLength: content.length, content };
}, { env: process.env, style: 'nph' });\n`;
    const ran = spawnSync(scripts.addNode('later', text), {
      env: { REQUEST_METHOD: 'PUT', CONTENT_LENGTH: '4' },
      input: 'bodymore',
    });
    assert.equal(ran.stdout.toString(), 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nBODY');
    assert.equal(ran.status, 0);
  });
});

describe('a responder whose handler answers asynchronously', () => {
  const socket = join(folder, 'socket');
  const errors: Error[] = [];
  let release = (_: CgiResponse): void => {};
  let held = 0;
  let responder: Responder;
  before(async () => {
    const handler = async ({ query }: CgiRequest): Promise<CgiResponse> => {
      if (query === 'throw') throw new Error('on purpose');
      if (query === 'shrank') {
        const path = join(folder, 'file');
        writeFileSync(path, 'what is left');
        return { status: 200, reason: 'OK', headers: [], contentLength: 100, content: { fd: openSync(path, 'r') } };
      }
      if (query === 'header') return answer('x', { headers: [['X', 'a\nb']] });
      if (query !== 'hold') return answer(query);
      held++;
      return await new Promise((resolve) => {
        release = resolve;
      });
    };
    const onError = (error: Error): void => {
      errors.push(error);
    };
    responder = createResponder({ handler, findSpoolFolder: () => undefined, onError });
    await listenAt(responder.server, { path: socket });
  });
  after(() => responder.end(0));

  const ask = (query: string) => askFastCgi(socket, { REQUEST_METHOD: 'GET', QUERY_STRING: query }, Buffer.alloc(0));

  it('serves other requests meanwhile', async () => {
    const first = ask('hold');
    await until(() => held === 1, 'the first request');
    assert.equal((await ask('second')).body.toString(), 'second');
    assert.equal(responder.isBusy(), true);
    release(answer('first'));
    assert.equal((await first).body.toString(), 'first');
  });

  it('answers 500 to an exception and to a malformed header', async () => {
    for (const query of ['throw', 'header']) assert.equal((await ask(query)).status, 500, query);
    assert.deepEqual(
      errors.map(({ name, message }) => name === 'RangeError' || message === 'on purpose'),
      [true, true],
    );
  });

  it('sends what is left of a file that shrank, and breaks off', async () => {
    const { body, protocolStatus } = await ask('shrank');
    assert.deepEqual([body.toString(), protocolStatus], ['what is left', undefined]);
  });

  it('closes the file of an answer when its client disconnected', async () => {
    const before = held;
    const peer = connect(socket);
    peer.write(formatRequest(1, { REQUEST_METHOD: 'GET', QUERY_STRING: 'hold' }, Buffer.alloc(0)));
    await until(() => held === before + 1, 'the request');
    peer.write(formatRecord({ type: RECORD_TYPES.abortRequest, requestId: 1, content: Buffer.alloc(0) }));
    await until(() => !responder.isBusy(), 'the end of the request');
    peer.destroy();
    const fd = openSync(LIBRARY, 'r');
    let hasEnded = false;
    const atEnd = (): void => {
      hasEnded = true;
    };
    release({ status: 200, reason: 'OK', headers: [], contentLength: 5, content: { fd }, atEnd });
    await until(() => hasEnded, 'the end of the answer');
    await sleep(1);
    try {
      assert.throws(() => fstatSync(fd), { code: 'EBADF' });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  });
});
