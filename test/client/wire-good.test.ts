// The bytes that the client sends to a correct server, and answers that are unusual but correct.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { arch, machine, release, type as systemType } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { makeClient } from '../support/client-job.ts';
import {
  afterBody,
  type FakeServer,
  formatAnswer,
  reply,
  serve,
  splitRequest,
  startFake,
} from '../support/client-server.ts';

const SECRET = 'pAss-w0rd-7291';
const MEGABYTE = 1024 * 1024;
const client = makeClient();
let fake: FakeServer;
before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});

/** Both stages at the fake server, with a password. */
function configure(more: Record<string, string> = {}): void {
  client.configure({
    URLGetURL: fake.url,
    URLPutURL: fake.url,
    URLAuthType: 'basic',
    URLUsername: 'client1',
    URLPassword: SECRET,
    ...more,
  });
}

describe('a client of a good server', () => {
  const PRINTS = '#!/bin/sh\nprintf "out\\000put"\nprintf error >&2\n';

  /** The requests of one job. */
  async function run(more: Record<string, string>): Promise<Buffer[]> {
    configure(more);
    fake.get = serve(PRINTS);
    const before = fake.requests().length;
    const ended = await client.execute(['host.sh', 'a b']);
    assert.deepEqual(ended, { code: 0, signal: null, stdout: '', stderr: '' });
    return fake.requests().slice(before);
  }

  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8'));
  const bits = /64|s390x/.test(arch()) ? 64 : 32;
  const system = `${machine()} ${systemType()} ${release()}`
    .replace(/[^\w ().-]/g, '_')
    .slice(0, 64)
    .replace(/[()]/g, (c) => (c === '(' ? '%28' : '%29'))
    .replaceAll(' ', '+');
  const identity = `VERSION=webjob+${version}+ssl+${bits}+bit&SYSTEM=${system}&CLIENTID=client1&FILENAME=host.sh`;

  it('sends the bytes of a C client', async () => {
    const [get = Buffer.of(), put = Buffer.of(), ...more] = await run({});
    assert.equal(more.length, 0);
    const authorization = `Authorization: Basic ${Buffer.from(`client1:${SECRET}`).toString('base64')}\r\n`;
    const start = `HTTP/1.1\r\nHost: 127.0.0.1:${fake.port}\r\nContent-Type: application/octet-stream\r\n`;
    assert.equal(
      get.toString('latin1'),
      `GET /cgi/nph-webjob.cgi?${identity} ${start}Content-Length: 0\r\n${authorization}Connection: close\r\n\r\n`,
    );
    const { head, body } = splitRequest(put);
    const env = body.toString('latin1', 'out\0puterror'.length);
    assert.equal(body.toString('latin1', 0, body.length - env.length), 'out\0puterror');
    const lengths = `RUNTYPE=snapshot&STDOUT_LENGTH=7&STDERR_LENGTH=5&STDENV_LENGTH=${env.length}`;
    assert.equal(
      head,
      `PUT /cgi/nph-webjob.cgi?${identity}&${lengths} ${start}Content-Length: ${body.length}\r\n${authorization}` +
        'Job-Id: server_1_1085355126_00723\r\nConnection: close\r\n\r\n',
    );
    assert.equal(parseRecord(env).fields.Jid, 'server_1_1085355126_00723');
  });

  it('sends no Authorization unless told, and no invalid Job-Id', async () => {
    for (const header of [
      '',
      'Job-Id: a b\r\n',
      `Job-Id: ${'x'.repeat(256)}\r\n`,
      'Job-Id: \xe4\r\n',
      'Job-Id: a\r\nJob-Id: b\r\n',
    ]) {
      const getting = formatAnswer(PRINTS, '200 OK', header);
      configure({ URLAuthType: 'none' });
      fake.get = reply(getting);
      const ended = await client.execute(['host.sh']);
      assert.deepEqual([ended.code, ended.stderr], [0, ''], header);
      const [get, put] = fake.requests().slice(-2).map(splitRequest);
      assert.doesNotMatch(`${get?.head}${put?.head}`, /^(?:Authorization|Job-Id)/im);
      assert.equal(parseRecord(put?.body.toString('latin1', 12) ?? '').fields.Jid, 'NA');
    }
  });

  it('accepts an answer that is unusual but correct', async () => {
    configure({ URLPutURL: '' });
    const printing = '#!/bin/sh\necho ran\n';
    const header = (name: string): string => `HTTP/1.0 200 OK\r\n${name}: ${printing.length}\r\n`;
    const TYPES = [
      'Text/Plain',
      'text/plain;charset=utf-8',
      'APPLICATION/octet-stream ; q=1',
      ' application/octet-stream ',
    ];
    for (const answer of [
      `${header('CONTENT-LENGTH')}\r\n${printing}`,
      `HTTP/1.1 100 Continue\r\n\r\n${header('content-length')}\r\n${printing}`,
      ...TYPES.map((type) => `${header('Content-Length')}Content-Type: ${type}\r\n\r\n${printing}`),
      `${header('Content-Length')}X: ${'x'.repeat(16_000)}\r\n\r\n${printing}`,
    ]) {
      fake.get = reply(answer);
      assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: 'ran\n', stderr: '' });
    }
  });

  it('accepts every acknowledgement that a WebJob server can send', async () => {
    const answers = ['', 'Content-Type: application/octet-stream\r\n', 'content-type: Text/Plain; charset=x\r\n'].map(
      (header) => `HTTP/1.0 200 OK\r\nserver: x\r\n${header}content-length: 0\r\n\r\n`,
    );
    fake.get = serve(PRINTS);
    for (const [RunType, answer] of [
      ...answers.map((answer) => ['snapshot', answer] as const),
      ...[...answers, 'HTTP/1.1 251 Link Test OK\r\nContent-Length: 00\r\n\r\n'].map(
        (answer) => ['linktest', answer] as const,
      ),
    ]) {
      configure({ RunType });
      fake.put = afterBody(Buffer.from(answer));
      assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' }, answer);
    }
    fake.put = afterBody(formatAnswer());
  });

  it('streams its uploads', {
    skip: !existsSync('/proc/self/status') && 'no /proc to see its memory in',
  }, async (test) => {
    const bytes = 100 * MEGABYTE;
    let received = 0;
    let peak = 0;
    let pid: number | undefined;
    const server = createServer(async (request, response) => {
      for await (const chunk of request) received += chunk.length;
      peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
      response.setHeader('Content-Length', 0).end();
    });
    test.after(() => server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    configure({ URLPutURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` });
    fake.get = serve(`#!/bin/sh\nhead -c ${bytes} /dev/zero\n`);
    const { child, ended } = client.start(['host.sh']);
    pid = child.pid;
    const { code, stderr } = await ended;
    assert.deepEqual([code, stderr], [0, '']);
    assert.ok(received > bytes && received < bytes + 4096, `${received}`);
    assert.ok(peak > MEGABYTE && peak < 120 * MEGABYTE, `${Math.round(peak / MEGABYTE)} MB at its peak`);
  });
});
