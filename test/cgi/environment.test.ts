// The environment that a server passes to a script (RFC 3875, section 4.1): environmentFor(), and
// parseHead() for the script's answer (section 6.3).
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { environmentFor, type ServedRequest } from '../../cgi/node-cgi-compat/environment.ts';
import { parseHead } from '../../cgi/node-cgi-compat/head.ts';

const SERVED: ServedRequest = {
  method: 'GET',
  target: '/cgi-bin/a.cgi',
  protocol: 'HTTP/1.1',
  rawHeaders: ['Host', 'example.org:8080'],
  remoteAddress: '192.0.2.7',
  remotePort: 40_000,
  localAddress: '192.0.2.1',
  localPort: 8080,
  secure: false,
  scriptName: '/cgi-bin/a.cgi',
  scriptFilename: '/srv/cgi-bin/a.cgi',
  serverSoftware: 'Test/1.0',
  remoteUser: undefined,
};
const env = (changes: Partial<ServedRequest>) => environmentFor({ ...SERVED, ...changes });
const withHeaders = (...rawHeaders: string[]) => env({ rawHeaders });
const httpNames = (variables: object): string[] => Object.keys(variables).filter((name) => name.startsWith('HTTP_'));

/** All variables that section 4.1 and httpd define, except HTTP_*. */
const META_VARIABLES =
  'AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE GATEWAY_INTERFACE HTTPS PATH_INFO QUERY_STRING REMOTE_ADDR REMOTE_PORT REMOTE_USER REQUEST_METHOD REQUEST_URI SCRIPT_FILENAME SCRIPT_NAME SERVER_ADDR SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_SOFTWARE'.split(
    ' ',
  );

describe('environmentFor', () => {
  it('gives a plain GET exactly these variables', () => {
    assert.deepEqual(env({ target: '/cgi-bin/a.cgi?b=c?d' }), {
      GATEWAY_INTERFACE: 'CGI/1.1',
      HTTP_HOST: 'example.org:8080',
      QUERY_STRING: 'b=c?d',
      REMOTE_ADDR: '192.0.2.7',
      REMOTE_PORT: '40000',
      REQUEST_METHOD: 'GET',
      REQUEST_URI: '/cgi-bin/a.cgi?b=c?d',
      SCRIPT_FILENAME: '/srv/cgi-bin/a.cgi',
      SCRIPT_NAME: '/cgi-bin/a.cgi',
      SERVER_ADDR: '192.0.2.1',
      SERVER_NAME: 'example.org',
      SERVER_PORT: '8080',
      SERVER_PROTOCOL: 'HTTP/1.1',
      SERVER_SOFTWARE: 'Test/1.0',
    });
  });

  it('adds length, type, user and TLS variables for a request that has them', () => {
    const variables = env({
      secure: true,
      remoteUser: 'client1',
      rawHeaders: ['Content-Length', '12', 'content-type', 'text/plain'],
    });
    assert.equal(variables.CONTENT_LENGTH, '12');
    assert.equal(variables.CONTENT_TYPE, 'text/plain');
    assert.equal(variables.REMOTE_USER, 'client1');
    assert.equal(variables.AUTH_TYPE, 'Basic');
    assert.equal(variables.HTTPS, 'on');
    assert.deepEqual(httpNames(variables), []);
  });

  it('leaves out the length of a chunked body', () => {
    const variables = withHeaders('Transfer-Encoding', 'chunked', 'Content-Length', '3');
    assert.equal('CONTENT_LENGTH' in variables, false);
    assert.equal(variables.HTTP_TRANSFER_ENCODING, 'chunked');
  });

  it('drops credentials, Proxy, and headers that share a name', () => {
    const variables = withHeaders(
      ...['Authorization', 'Basic eDp5', 'proxy-authorization', 'Basic eDp5'],
      ...['Proxy', 'http://evil.example', 'PROXY', 'http://evil.example', 'Connection', 'close'],
      ...['Job_Id', 'forged', 'Job-Id', 'real', 'X.Dot', '1'],
    );
    assert.deepEqual(httpNames(variables), ['HTTP_JOB_ID']);
    assert.equal(variables.HTTP_JOB_ID, 'real');
  });

  it('joins repeated headers with commas, whatever their case', () => {
    assert.equal(withHeaders('X-A', '1', 'Y', 'z', 'x-a', '2', 'X-A', '3').HTTP_X_A, '1, 2, 3');
  });

  it('decodes PATH_INFO, and keeps what a variable cannot hold as the client sent it', () => {
    const pathInfo = (rest: string) => env({ target: `/cgi-bin/a.cgi${rest}` }).PATH_INFO;
    assert.equal(pathInfo(''), undefined);
    assert.equal(pathInfo('/a%20b/%C3%A4%2Fc?x=%20'), '/a b/ä/c');
    assert.equal(pathInfo('/%ff'), '/%ff');
    assert.equal(pathInfo('/%zz'), '/%zz');
    assert.equal(pathInfo('/a%00b%20c'), '/a%00b%20c');
  });

  it('names the server as the client did, or else by its address, with IPv6 in brackets', () => {
    const name = (host: string | undefined, localAddress = '192.0.2.1') =>
      env({ rawHeaders: host === undefined ? [] : ['Host', host], localAddress }).SERVER_NAME;
    assert.equal(name('example.org'), 'example.org');
    assert.equal(name('[2001:db8::1]:8080'), '[2001:db8::1]');
    assert.equal(name('[2001:db8::1]'), '[2001:db8::1]');
    assert.equal(name(undefined), '192.0.2.1');
    assert.equal(name('', '::1'), '[::1]');
  });

  it('lets no header shadow a meta variable or form a name that a shell cannot hold', () => {
    const plain = Object.entries(env({ rawHeaders: [], remoteUser: 'client1', secure: true }));
    const name = fc.oneof(
      fc.constantFrom(...META_VARIABLES, 'Proxy', 'S', 'PATH', '__proto__', 'constructor', 'Content-Length', ''),
      fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}$/),
      fc.string(),
    );
    const headers = fc.array(fc.tuple(name, fc.string()), { maxLength: 12 });
    fc.assert(
      fc.property(headers, (pairs) => {
        const all = env({ rawHeaders: pairs.flat(), remoteUser: 'client1', secure: true });
        for (const [key, value] of plain) if (key !== 'SERVER_NAME') assert.equal(all[key], value, key);
        for (const key of Object.keys(all)) {
          assert.match(key, /^[A-Z0-9_]+$/);
          assert.ok(key.startsWith('HTTP_') || META_VARIABLES.includes(key), key);
        }
        assert.equal(all.HTTP_PROXY, undefined);
        assert.equal(all.HTTP_AUTHORIZATION, undefined);
      }),
      { numRuns: 500 },
    );
  });
});

describe('parseHead', () => {
  it('reads status, reason and headers, and drops headers that only the host may set', () => {
    assert.deepEqual(parseHead('status: 404 Not Here\r\nX-A:  b\nX-A: c\nConnection: close\nTrailer: x'), {
      status: 404,
      reason: 'Not Here',
      headers: [
        ['X-A', 'b'],
        ['X-A', 'c'],
      ],
    });
    assert.deepEqual(parseHead('Status: 204'), { status: 204, reason: undefined, headers: [] });
    assert.equal(parseHead('Content-Type: text/plain')?.status, 200);
    assert.equal(parseHead('Location: /x')?.status, 302);
    assert.equal(parseHead('Location: /x\nStatus: 200')?.status, 200);
    assert.equal(parseHead('Status: 301 Moved\nLocation: /x')?.status, 301);
  });

  it('refuses text that is not a header', () => {
    for (const text of ['', 'hello', ': x', 'A b: c', ' A: b', 'A : b', 'A: b\n\tc', 'A: \x01', 'A: ä', 'A: b\rC: d']) {
      assert.equal(parseHead(text), undefined, JSON.stringify(text));
    }
    for (const status of ['', '20', '2000', '099', 'OK', '200OK', '-200']) {
      assert.equal(parseHead(`Status: ${status}`), undefined, status);
    }
  });
});
