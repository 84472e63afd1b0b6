// The answers of the script are the same for every version of HTTP: curl with HTTP/2 over TLS, 1.1
// and 1.0, on connections that it would like to keep, and with `Expect: 100-continue`.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { addCommand } from '../../scripts/site.ts';
import { type CurlAnswer, NO_CURL, runCurl } from '../support/curl.ts';
import { makeCertificates, SERVER_NAME, type SecureSite, useSite } from '../support/secure-site.ts';
import { part } from '../support/thorough.ts';
import { readFiles } from '../support/tree.ts';

const MEGABYTE = 1024 * 1024;
const certificates = makeCertificates();
const folder = mkdtempSync(join(tmpdir(), 'webjob-http-'));
after(() => {
  certificates.remove();
  rmSync(folder, { recursive: true });
});

/** Binary, with every byte value. */
const PROGRAM = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => i)), randomBytes(2 * MEGABYTE)]);
const STREAMS = { out: randomBytes(2 * MEGABYTE - 77), err: randomBytes(70), env: Buffer.from('Key=\r\n\0') };
const BODY = join(folder, 'body');
writeFileSync(BODY, Buffer.concat([STREAMS.out, STREAMS.err, STREAMS.env]));
const EMPTY = join(folder, 'empty');
writeFileSync(EMPTY, '');

const GET_HEADERS = ['--header', 'Content-Length: 0'];
const USER = ['--user', 'client1:foo'];

/**
 * The options for curl, and the version it then reports. curl offers 1.0 by ALPN and does not
 * accept httpd's answer to that.
 */
const PROTOCOLS = [
  { name: 'HTTP/2 over TLS', mpms: ['event'], secure: true, words: ['--http2'], version: '2' },
  { name: 'HTTP/1.1 over TLS', mpms: ['event', 'prefork'], secure: true, words: ['--http1.1'], version: '1.1' },
  { name: 'HTTP/1.1', mpms: ['event', 'prefork'], secure: false, words: ['--http1.1'], version: '1.1' },
  { name: 'HTTP/1.0 over TLS', mpms: ['event'], secure: true, words: ['--http1.0', '--no-alpn'], version: '1.1' },
  { name: 'HTTP/1.0', mpms: ['event', 'prefork'], secure: false, words: ['--http1.0'], version: '1.1' },
] as const;

function urlOf(site: SecureSite, secure: boolean, fields: Record<string, string> = {}): string {
  const query = new URLSearchParams({
    VERSION: 'webjob 1.4.0',
    SYSTEM: 'any',
    CLIENTID: 'client1',
    FILENAME: 'program',
    ...fields,
  });
  const base = secure ? `https://${SERVER_NAME}:${site.port}` : `http://127.0.0.1:${site.plainPort}`;
  return `${base}/webjob/nph-webjob.cgi?${query}`;
}

/** The options for a PUT of BODY, and its URL. */
function put(site: SecureSite, secure: boolean, fields: Record<string, string> = {}): string[] {
  const lengths = Object.entries(STREAMS).map(([name, { length }]) => [`STD${name.toUpperCase()}_LENGTH`, `${length}`]);
  const url = urlOf(site, secure, { RUNTYPE: 'snapshot', ...Object.fromEntries(lengths), ...fields });
  return ['--upload-file', BODY, url];
}

/** Removes the only upload from the locker; its streams must be those of BODY. */
function assertStored(site: SecureSite, count = 1): void {
  const files = [...readFiles(site.site.incoming)];
  const byKind = (kind: string): string[] => files.flatMap(([name, text]) => (name.endsWith(kind) ? [text] : []));
  for (const [kind, bytes] of Object.entries(STREAMS)) {
    const found = byKind(`.${kind}`);
    assert.equal(found.length, count);
    for (const text of found) assert.ok(Buffer.from(text, 'latin1').equals(bytes), `.${kind} is what was sent`);
  }
  assert.equal(byKind('.rdy').length, count);
  assert.equal(files.length, 4 * count, 'four files an upload, nothing else');
  for (const [name] of files) rmSync(join(site.site.incoming, name));
}

function assertProgram(answer: CurlAnswer | undefined): void {
  assert.equal(answer?.status, 200);
  assert.match(answer.head, /^job-id: server_1_\d{10}_\d{5,}\r$/im);
  assert.match(answer.head, new RegExp(`^content-length: ${PROGRAM.length}\r$`, 'im'));
  assert.ok(answer.body.equals(PROGRAM));
}

for (const mpm of part(['event', 'prefork'] as const, 1)) {
  describe(`curl with ${mpm}`, { skip: NO_CURL }, () => {
    const http2 = mpm === 'event' ? { modules: ['http2'], before: 'Protocols h2 http/1.1' } : {};
    const use = useSite({ certificates, mpm, virtualHost: 'password', ...http2 });
    before(() => addCommand(use().site, 'client1', 'program', PROGRAM));

    const spoken = PROTOCOLS.filter(({ mpms }) => (mpms as readonly string[]).includes(mpm));
    for (const [index, { name, secure, words, version }] of spoken.entries()) {
      describe(name, () => {
        const ask = async (...requests: string[][]): Promise<CurlAnswer[]> => {
          const to = [`${SERVER_NAME}:${use().port}:127.0.0.1:${use().port}`];
          const trust = ['--cacert', join(certificates.folder, 'webjob-server.crt'), '--connect-to', ...to];
          return await runCurl([...words, ...trust], ...requests);
        };
        const get = (fields = {}): string[] => [...USER, ...GET_HEADERS, urlOf(use(), secure, fields)];

        it('gets a program, byte for byte', async () => {
          const [answer] = await ask(get());
          assertProgram(answer);
          assert.equal(answer?.version, version);
          // HTTP/2 has no such header (RFC 9113, section 8.2.2), so httpd removes it.
          assert.equal(/^connection: close\r$/im.test(answer?.head ?? ''), version !== '2', answer?.head);
        });

        it('uploads 2 MB, with Expect: 100-continue and without', async () => {
          for (const expect of ['Expect: 100-continue', 'Expect:']) {
            const [answer] = await ask([...USER, '--header', expect, ...put(use(), secure)]);
            assert.equal(answer?.status, 200, expect);
            assert.equal(answer.bytesUploaded, 2 * MEGABYTE);
            assert.match(answer.head, /^content-length: 0\r$/im);
            assertStored(use());
            const isAsked = expect.includes('100') && name.startsWith('HTTP/1.1');
            assert.equal(/^HTTP\/1\.1 100 Continue\r$/m.test(answer.head), isAsked, `${expect}: ${answer.head}`);
          }
        });

        it('sees every refusal', async () => {
          const cases: [status: number, words: string[]][] = [
            [404, get({ FILENAME: 'absent' })],
            [450, get({ FILENAME: '..' })],
            [453, get({ CLIENTID: 'client2' })],
            [454, [...USER, '--header', 'Content-Length:', urlOf(use(), secure)]],
            [456, [...USER, ...put(use(), secure, { STDOUT_LENGTH: '1' })]],
            [453, [...USER, ...put(use(), secure, { CLIENTID: 'client2' })]],
            [251, [...USER, ...put(use(), secure, { RUNTYPE: 'linktest' })]],
          ];
          // The first protocol is tested with all of them, the others with one without a body, one
          // that ends a body early, and one after a whole body.
          const few = new Set([404, 456, 251]);
          for (const [status, request] of cases.filter(([status]) => index === 0 || few.has(status))) {
            const [answer] = await ask(request);
            assert.equal(answer?.status, status, request.at(-1));
            assert.deepEqual([answer.body.length, answer.version], [0, version]);
          }
          assert.deepEqual(readdirSync(use().site.incoming), []);
        });

        // In HTTP/2 httpd resets the stream, and whether curl has seen the status by then is
        // chance.
        if (version !== '2')
          it('is asked for its password before a body is read', async () => {
            const [answer] = await ask(['--header', 'Expect: 100-continue', ...put(use(), secure)]);
            assert.equal(answer?.status, 401);
            assert.doesNotMatch(answer.head, / 100 /);
            assert.deepEqual(readdirSync(use().site.incoming), []);
          });

        it('gets two answers from one run, on a kept connection or a new one', async () => {
          const keep = ['--header', 'Connection: keep-alive'];
          const words = version === '2' ? [] : keep;
          const [first, second, third] = await ask(
            [...words, ...get()],
            [...words, ...USER, ...put(use(), secure)],
            [...words, ...get()],
          );
          assertProgram(first);
          assert.equal(second?.status, 200);
          assertStored(use());
          assertProgram(third);
          // After an answer that httpd does not parse it cannot keep a connection of HTTP/1; with
          // HTTP/2 it can.
          const connects = [first, second, third].map((answer) => answer?.connects);
          assert.deepEqual(connects, version === '2' ? [1, 0, 0] : [1, 1, 1]);
        });
      });
    }

    it('gets the program on a connection on which httpd itself has answered before', async () => {
      const url = urlOf(use(), false);
      const [first, second] = await runCurl([], [...GET_HEADERS, url], [...USER, ...GET_HEADERS, url]);
      assert.deepEqual([first?.status, second?.connects], [401, 0]);
      assertProgram(second);
    });

    it('cannot upload a body without a length', async () => {
      const [, , url = ''] = put(use(), false);
      const [answer] = await runCurl(
        ['--http1.1'],
        [...USER, '--header', 'Transfer-Encoding: chunked', '-T', BODY, url],
      );
      assert.equal(answer?.status, 454);
      assert.deepEqual(readdirSync(use().site.incoming), []);
    });
  });
}

describe('curl with HTTP/2 over TLS', { skip: NO_CURL }, () => {
  const use = useSite({
    certificates,
    virtualHost: 'certificate',
    modules: ['http2'],
    before: 'Protocols h2 http/1.1',
  });
  before(() => {
    addCommand(use().site, 'client1', 'program', PROGRAM);
    use().permit('htaccess-certificates');
    use().configure('certificate');
  });
  const common = (): string[] => {
    const { folder: server, site } = certificates;
    return [
      ...['--http2', '--cacert', join(server, 'webjob-server.crt')],
      ...['--connect-to', `${SERVER_NAME}:${use().port}:127.0.0.1:${use().port}`],
      ...['--cert', join(site.folder, 'client1.crt'), '--key', join(site.folder, 'client1.key')],
    ];
  };

  it('gets and uploads with a certificate', async () => {
    const [first, second, third] = await runCurl(common(), [...GET_HEADERS, urlOf(use(), true)], put(use(), true), [
      ...GET_HEADERS,
      urlOf(use(), true, { CLIENTID: 'client2' }),
    ]);
    assertProgram(first);
    assert.equal(second?.status, 200);
    assertStored(use());
    assert.deepEqual([third?.status, third?.version, third?.connects], [453, '2', 0]);
  });

  it('uploads several complete files at once on one connection', async () => {
    const answers = await runCurl(['--parallel', ...common()], ...Array.from({ length: 4 }, () => put(use(), true)));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 200],
    );
    assertStored(use(), 4);
  });

  it('is refused without a certificate', async () => {
    const withoutCertificate = common().slice(0, -4);
    await assert.rejects(
      runCurl(withoutCertificate, [...GET_HEADERS, urlOf(use(), true)]),
      /curl ended with (?:16|35|55|56|92)/,
    );
  });
});
