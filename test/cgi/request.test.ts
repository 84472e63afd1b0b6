// node-cgi-compat as a script uses it: the request from its environment, its body from a
// descriptor, the answer to another one. With real files, pipes, sockets and processes.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, fstatSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import {
  type CgiResponse,
  drainBody,
  findHeader,
  formatHead,
  openBody,
  readSome,
  requestFromEnv,
  writeAll,
  writeResponse,
} from 'node-cgi-compat';
import { type Folder, LIBRARY, makeFolder, until } from '../support/cgi-scripts.ts';

const { O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;

let folder: Folder;
before(() => {
  folder = makeFolder();
});
after(() => folder.remove());

function fileOf(bytes: string | Uint8Array): string {
  const path = join(folder.path, `file-${Math.random()}`);
  writeFileSync(path, bytes);
  return path;
}

/** A FIFO. Opened for both directions it is a pipe that never ends and never blocks. */
function makePipe(): string {
  const path = join(folder.path, `pipe-${Math.random()}`);
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  return path;
}

function withDescriptor<T>(path: string, flags: number | string, use: (fd: number) => T): T {
  const fd = openSync(path, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
}

describe('requestFromEnv', () => {
  it('reads what the server passed', () => {
    const env = {
      REQUEST_METHOD: 'get',
      QUERY_STRING: 'a=%20',
      SERVER_PROTOCOL: 'HTTP/1.1',
      SERVER_SOFTWARE: 'Apache',
      CONTENT_LENGTH: '12',
      REMOTE_ADDR: '192.0.2.1',
      REMOTE_USER: 'client1',
      HTTPS: 'ON',
    };
    assert.deepEqual(requestFromEnv(env), {
      method: 'get',
      query: 'a=%20',
      protocol: 'HTTP/1.1',
      serverSoftware: 'Apache',
      contentLength: 12,
      remoteAddress: '192.0.2.1',
      remoteUser: 'client1',
      secure: true,
      env,
    });
  });

  it('leaves out what the server did not set', () => {
    const { env, ...rest } = requestFromEnv({ REMOTE_USER: '', REMOTE_ADDR: '', HTTPS: 'off' });
    assert.deepEqual(rest, {
      method: '',
      query: '',
      protocol: '',
      serverSoftware: '',
      contentLength: undefined,
      remoteAddress: undefined,
      remoteUser: undefined,
      secure: false,
    });
    assert.equal(env.HTTPS, 'off');
  });

  it('accepts only decimal digits as a length', () => {
    const length = (text: string) => requestFromEnv({ CONTENT_LENGTH: text }).contentLength;
    assert.equal(length('0'), 0);
    assert.equal(length('007'), 7);
    for (const text of ['', '-1', '+1', '1.0', '1e3', '0x10', ' 1', '1 ', '1,1', '١', '9'.repeat(21), 'Infinity']) {
      assert.equal(length(text), undefined, text);
    }
  });

  it('finds a header by its HTTP name', () => {
    const request = requestFromEnv({ HTTP_JOB_ID: 'a, b', HTTP_X_A_B_C: 'long', CONTENT_TYPE: 'text/plain' });
    assert.equal(findHeader(request, 'X-A-B-C'), 'long');
    assert.equal(findHeader(request, 'Job-Id'), 'a, b');
    assert.equal(findHeader(request, 'JOB-ID'), 'a, b');
    assert.equal(findHeader(request, 'Job'), undefined);
  });
});

describe('a request body', () => {
  it('yields its number of bytes of a file in order, however they are read, and no more', () => {
    const size = 300;
    const bytes = Buffer.from(Array.from({ length: size }, (_, i) => i % 251));
    const path = fileOf(bytes);
    const sizes = fc.array(fc.nat(70), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.nat(size + 20), sizes, (length, bufferSizes) => {
        withDescriptor(path, 'r', (fd) => {
          const body = openBody(fd, length);
          const read: Buffer[] = [];
          // The last size lets every run reach its end; an empty buffer reads and ends nothing.
          for (const bufferSize of [...bufferSizes, 400, 400]) {
            const buffer = Buffer.alloc(bufferSize);
            read.push(buffer.subarray(0, body.read(buffer)));
          }
          assert.deepEqual(Buffer.concat(read), bytes.subarray(0, length));
          assert.equal(body.read(Buffer.alloc(1)), 0);
          const next = Buffer.alloc(1);
          if (length < size) assert.equal(readSync(fd, next) && next[0], bytes[length]);
        });
      }),
      { numRuns: 200 },
    );
  });

  it('ends where a pipe goes on, without waiting for more', () => {
    withDescriptor(makePipe(), O_RDWR, (fd) => {
      writeAll(fd, Buffer.from('abcdefghij'));
      assert.equal(drainBody(openBody(fd, 4)), 4);
      assert.equal(drainBody(openBody(fd, 0)), 0);
      const rest = Buffer.alloc(20);
      assert.equal(rest.toString('latin1', 0, readSome(fd, rest)), 'efghij');
    });
  });

  it('ends where a socket that is standard input goes on', async () => {
    const lines = [
      `import { openBody, readSome } from '${LIBRARY}';`,
      'const buffer = Buffer.alloc(100);',
      'const body = openBody(0, 4);',
      'for (let n = body.read(buffer); n > 0; n = body.read(buffer)) console.log(buffer.toString("latin1", 0, n));',
      'console.log("rest", buffer.toString("latin1", 0, readSome(0, buffer)));',
    ];
    const child = spawn(folder.addNode('bounded', lines.join('\n')));
    // Not ended: a read after the tenth byte would never return.
    child.stdin.write('abcdefghij');
    const output = child.stdout.toArray();
    assert.equal(await ended(child), 0);
    assert.equal((await output).join(''), 'abcd\nrest efghij\n');
  });

  it('ends early with its descriptor, and without a length only there', () => {
    const path = fileOf(Buffer.alloc(1_000_000));
    assert.equal(
      withDescriptor(path, 'r', (fd) => drainBody(openBody(fd, 2_000_000))),
      1_000_000,
    );
    assert.equal(
      withDescriptor(path, 'r', (fd) => drainBody(openBody(fd, undefined))),
      1_000_000,
    );
    assert.equal(
      withDescriptor(path, 'r', (fd) => drainBody(openBody(fd, 999_999))),
      999_999,
    );
  });
});

describe('a non-blocking descriptor', () => {
  it('is read by waiting for it', async () => {
    const pipe = makePipe();
    const child = withDescriptor(pipe, O_RDWR | O_NONBLOCK, (fd) => {
      const buffer = Buffer.alloc(10);
      assert.throws(() => readSync(fd, buffer), { code: 'EAGAIN' });
      const writer = spawn('/bin/sh', ['-c', `sleep 0.1; printf late > '${pipe}'`]);
      assert.equal(buffer.toString('latin1', 0, readSome(fd, buffer)), 'late');
      return writer;
    });
    assert.equal(await ended(child), 0);
  });

  it('is written completely, however often it is full', async () => {
    const pipe = makePipe();
    const bytes = Buffer.from(Array.from({ length: 1_000_000 }, (_, i) => (i * 7) % 256));
    const child = withDescriptor(pipe, O_RDWR | O_NONBLOCK, (fd) => {
      const copy = `sleep 0.1; head -c ${bytes.length} '${pipe}' > '${pipe}.copy'`;
      const reader = spawn('/bin/sh', ['-c', copy]);
      writeAll(fd, bytes);
      return reader;
    });
    assert.equal(await ended(child), 0);
    assert.deepEqual(readFileSync(`${pipe}.copy`), bytes);
  });
});

describe('formatHead', () => {
  const response = {
    status: 251,
    reason: 'Link Test OK',
    headers: [
      ['Job-Id', 'a'],
      ['X', ''],
    ],
    contentLength: 7,
  } satisfies CgiResponse;

  it('formats an answer for the client and one for the server', () => {
    const rest = 'Job-Id: a\r\nX: \r\nContent-Length: 7\r\n';
    assert.equal(formatHead(response, 'nph'), `HTTP/1.1 251 Link Test OK\r\n${rest}Connection: close\r\n\r\n`);
    assert.equal(formatHead(response, 'parsed'), `Status: 251 Link Test OK\r\n${rest}\r\n`);
  });

  it('refuses anything that would break out of its line', () => {
    for (const bad of ['a\r\nSet-Cookie: b', 'a\n', '\r', 'a\0', 'ä', '\x7f', '\u2028']) {
      assert.throws(() => formatHead({ ...response, reason: bad }, 'nph'), RangeError);
      assert.throws(() => formatHead({ ...response, headers: [['X-A', bad]] }, 'parsed'), RangeError);
      assert.throws(() => formatHead({ ...response, headers: [[`X${bad}`, 'b']] }, 'nph'), RangeError);
    }
    const text = fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom('\r', '\n', 'a', ':', ' ', '\0') }));
    fc.assert(
      fc.property(text, fc.array(fc.tuple(text, text)), (reason, headers) => {
        let head: string;
        try {
          head = formatHead({ ...response, reason, headers }, 'nph');
        } catch (error) {
          assert.ok(error instanceof RangeError);
          return;
        }
        assert.equal(head.split(/\r|\n/).length, 2 * (headers.length + 4) + 1);
      }),
    );
  });
});

describe('writeResponse', () => {
  const head = (length: number): string => `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`;
  const base = { status: 200, reason: 'OK', headers: [] };
  const isOpen = (fd: number): boolean => {
    try {
      fstatSync(fd);
      return true;
    } catch {
      return false;
    }
  };
  function written(response: CgiResponse): string {
    const path = fileOf('');
    withDescriptor(path, 'w', (fd) => writeResponse(fd, response, 'nph'));
    return readFileSync(path, 'latin1');
  }

  it('sends bytes, and no more than announced', () => {
    assert.equal(written({ ...base, contentLength: 0 }), head(0));
    assert.equal(written({ ...base, contentLength: 3, content: Buffer.from('abcdef') }), `${head(3)}abc`);
  });

  it('sends a file from its current offset, no more than announced, and closes it', () => {
    const fd = openSync(fileOf('0123456789'), 'r');
    readSync(fd, Buffer.alloc(2));
    assert.equal(written({ ...base, contentLength: 5, content: { fd } }), `${head(5)}23456`);
    assert.equal(isOpen(fd), false);
  });

  it('sends all of a file in many pieces, and the rest of one that shrank', () => {
    const bytes = Buffer.alloc(700_001, 'abcdefg');
    const whole = { fd: openSync(fileOf(bytes), 'r') };
    assert.equal(written({ ...base, contentLength: bytes.length, content: whole }), `${head(bytes.length)}${bytes}`);
    const shrunk = { fd: openSync(fileOf('abc'), 'r') };
    assert.equal(written({ ...base, contentLength: 9, content: shrunk }), `${head(9)}abc`);
    assert.equal(isOpen(shrunk.fd), false);
  });

  it('sends nothing of an answer whose header is refused, and closes its file', () => {
    const fd = openSync(fileOf('abc'), 'r');
    const path = fileOf('');
    const forged = { ...base, reason: 'a\r\nb', contentLength: 3, content: { fd } };
    assert.throws(() => withDescriptor(path, 'w', (out) => writeResponse(out, forged, 'nph')), RangeError);
    assert.equal(readFileSync(path, 'utf8'), '');
    assert.equal(isOpen(fd), false);
  });

  it('treats a reader that left as no error, and any other failure as an error', () => {
    const pipe = makePipe();
    const reader = openSync(pipe, O_RDONLY | O_NONBLOCK);
    const content = { fd: openSync(fileOf('abc'), 'r') };
    withDescriptor(pipe, O_WRONLY, (fd) => {
      closeSync(reader);
      assert.throws(() => writeAll(fd, Buffer.from('x')), { code: 'EPIPE' });
      writeResponse(fd, { ...base, contentLength: 3, content }, 'nph');
    });
    assert.equal(isOpen(content.fd), false);
    const readOnly = () =>
      withDescriptor(fileOf(''), 'r', (fd) => writeResponse(fd, { ...base, contentLength: 0 }, 'nph'));
    assert.throws(readOnly, { code: 'EBADF' });
  });
});

describe('serveScript in a process of its own', () => {
  const serve = (handler: string): string =>
    `import { writeFileSync } from 'node:fs';
import { serveScript } from '${LIBRARY}';
serveScript((request, body) => { ${handler} }, { env: process.env, style: 'nph' });\n`;

  it('answers only after the body was read to its end, even one the handler did not touch', async () => {
    const handled = join(folder.path, 'handled');
    const text = serve(
      `writeFileSync('${handled}', ''); return { status: 450, reason: 'No', headers: [], contentLength: 0 };`,
    );
    const child = spawn(folder.addNode('late', text), { env: { REQUEST_METHOD: 'PUT', CONTENT_LENGTH: '200000' } });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.stdin.write(Buffer.alloc(100_000));
    await until(() => existsSync(handled), 'the call of the handler');
    // Nothing arrives during this wait from a correct script; an incorrect one would have answered.
    await sleep(150);
    assert.equal(output, '');
    child.stdin.write(Buffer.alloc(100_000));
    assert.equal(await ended(child), 0);
    assert.equal(output, 'HTTP/1.1 450 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  });

  it('passes the handler its request and its body', async () => {
    const text = serve(`const buffer = Buffer.alloc(100);
      const content = Buffer.from(request.method + ' ' + buffer.toString('latin1', 0, body.read(buffer)));
      return { status: 200, reason: 'OK', headers: [], contentLength: content.length, content };`);
    const child = spawnSync(folder.addNode('echo', text), {
      env: { REQUEST_METHOD: 'PUT', CONTENT_LENGTH: '4' },
      input: 'bodymore',
    });
    assert.equal(child.stdout.toString(), 'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nPUT body');
  });

  it('ends normally when no client reads its answer', async () => {
    const text = serve(`const content = Buffer.alloc(5_000_000);
      return { status: 200, reason: 'OK', headers: [], contentLength: content.length, content };`);
    const child = spawn(folder.addNode('unread', text), { env: { REQUEST_METHOD: 'GET' } });
    const complaints = child.stderr.toArray();
    child.stdin.end();
    child.stdout.once('data', () => child.stdout.destroy());
    assert.equal(await ended(child), 0);
    assert.equal((await complaints).join(''), '');
  });

  it('ends with an empty answer and a failure when the handler throws', () => {
    const child = spawnSync(folder.addNode('throwing', serve(`throw new Error('a bug')`)), { env: {} });
    assert.notEqual(child.status, 0);
    assert.equal(child.stdout.toString(), '');
    assert.match(child.stderr.toString(), /a bug/);
  });
});
