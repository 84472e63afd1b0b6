// webjob-protocol: what travels and what is logged. Each parser undoes its formatter, accepts the
// article's examples, refuses what no formatter writes, and no value can add a line or a field.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  findJobIdParts,
  findJobIdTime,
  formatGetQuery,
  formatJobId,
  formatLogLine,
  formatPutQuery,
  formatTime,
  type GetQuery,
  isClientId,
  isFileName,
  isJobId,
  type LogLine,
  parseGetQuery,
  parseLogLine,
  parsePutQuery,
  QueryError,
} from 'webjob-protocol';
import { byteCount, encodeEverything, hostileText, plainRecord } from '../support/arbitraries.ts';

const oneOf = (pattern: RegExp): fc.Arbitrary<string> => fc.stringMatching(pattern);
const clientId = oneOf(/^[A-Za-z0-9_-]{1,64}$/);
const fileName = oneOf(/^[A-Za-z0-9_+.:-]{1,40}$/).filter((name) => name !== '.' && name !== '..');

const getQuery: fc.Arbitrary<GetQuery> = plainRecord({
  version: oneOf(/^webjob[A-Za-z0-9 ().,_-]{0,64}$/),
  system: oneOf(/^[A-Za-z0-9 .,()_:+/~#-]{1,255}$/),
  clientId,
  fileName,
});

const GET =
  'VERSION=webjob+1.4.0+ssl+32+bit&SYSTEM=INTEL+Windows+NT+5.0+Build+2195+Service+Pack+4&CLIENTID=client1&FILENAME=host.sh';
const PUT = `${GET}&RUNTYPE=snapshot&STDOUT_LENGTH=3&STDERR_LENGTH=0&STDENV_LENGTH=4`;

describe('names in requests', () => {
  it('are accepted up to their documented length', () => {
    for (const name of ['client1', 'a', 'A-b_9', 'x'.repeat(64)]) assert.ok(isClientId(name), name);
    for (const name of ['', 'x'.repeat(65), 'a.b', 'a b', '../a', 'a/b', 'a\n', '\na', 'a\0', 'é']) {
      assert.ok(!isClientId(name), JSON.stringify(name));
    }
    for (const name of ['host.sh', '...', 'a:b+c', '-rf', 'myprograms.rpm.pad', 'x'.repeat(1024)]) {
      assert.ok(isFileName(name), name);
    }
    for (const name of ['', '.', '..', 'x'.repeat(1025), 'a/b', '/a', 'a\\b', 'a%2f', 'a b', 'a\n', 'a\0', 'ä']) {
      assert.ok(!isFileName(name), JSON.stringify(name));
    }
    for (const id of ['server_1_1085355126_00723', '../..', '$(id)', '%', '"', 'x'.repeat(255)])
      assert.ok(isJobId(id), id);
    for (const id of ['', 'x'.repeat(256), 'a b', 'a\n', 'a\r', '\ta', 'a\x7f', 'a\0', 'é', '\u2028']) {
      assert.ok(!isJobId(id), JSON.stringify(id));
    }
  });

  it('contain only their documented characters', () => {
    fc.assert(
      fc.property(hostileText, (text) => {
        if (isClientId(text)) assert.match(text, /^[\w-]+$/);
        if (isFileName(text)) assert.ok(/^[\w+.:-]+$/.test(text) && !/^\.{1,2}$/.test(text));
        if (isJobId(text)) assert.ok(Buffer.from(text).every((byte) => byte > 0x20 && byte < 0x7f));
      }),
    );
  });
});

describe('queries', () => {
  it('are read as in the article', () => {
    assert.deepEqual(parseGetQuery(GET), {
      version: 'webjob 1.4.0 ssl 32 bit',
      system: 'INTEL Windows NT 5.0 Build 2195 Service Pack 4',
      clientId: 'client1',
      fileName: 'host.sh',
    });
    const { runType, outLength, errLength, envLength } = parsePutQuery(PUT);
    assert.deepEqual(
      { runType, outLength, errLength, envLength },
      { runType: 'snapshot', outLength: 3, errLength: 0, envLength: 4 },
    );
  });

  it('are written byte for byte as a C client writes them', () => {
    assert.equal(formatGetQuery(parseGetQuery(GET)), GET);
    assert.equal(formatPutQuery(parsePutQuery(PUT)), PUT);
    const query = { version: 'webjob (a),b_c-d', system: 'a/b ~#:+', clientId: 'a-b_c', fileName: 'a+b:c' };
    assert.equal(
      formatGetQuery(query),
      'VERSION=webjob+%28a%29%2cb_c-d&SYSTEM=a/b+%7e%23%3a%2b&CLIENTID=a-b_c&FILENAME=a%2bb%3ac',
    );
  });

  it('survive the round trip', () => {
    fc.assert(
      fc.property(getQuery, fc.constantFrom('snapshot', 'linktest'), byteCount, byteCount, byteCount, (get, ...put) => {
        const [runType, outLength, errLength, envLength] = put;
        const query = { ...get, runType, outLength, errLength, envLength };
        assert.deepEqual(parseGetQuery(formatGetQuery(get)), get);
        assert.deepEqual(parsePutQuery(formatPutQuery(query)), query);
        assert.throws(() => parseGetQuery(formatPutQuery(query)), QueryError);
        assert.throws(() => parsePutQuery(formatGetQuery(get)), QueryError);
      }),
    );
  });

  it('are accepted or refused as a whole: every accepted value matches its pattern', () => {
    const value = fc.oneof(hostileText, hostileText.map(encodeEverything), fileName);
    fc.assert(
      fc.property(value, value, value, value, (version, system, id, name) => {
        try {
          const query = parseGetQuery(`VERSION=webjob${version}&SYSTEM=${system}&CLIENTID=${id}&FILENAME=${name}`);
          assert.match(query.version, /^webjob[\w ().,-]{0,64}$/);
          assert.match(query.system, /^[\w .,():+/~#-]{1,255}$/);
          assert.ok(isClientId(query.clientId) && isFileName(query.fileName));
        } catch (error) {
          assert.ok(error instanceof QueryError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('are refused with the name of the first wrong field, without its bytes', () => {
    const refusals: [query: string, field: string][] = [
      ['', 'VERSION'],
      [`X=1&${GET}`, 'VERSION'],
      [GET.replace('VERSION', 'version'), 'VERSION'],
      [GET.replace('webjob', 'ftimes'), 'VERSION'],
      [GET.replace('INTEL', 'a%26CLIENTID%3droot'), 'CLIENTID'],
      [GET.replace('SYSTEM', 'CLIENTID'), 'SYSTEM'],
      [GET.replace('client1', ''), 'CLIENTID'],
      [GET.replace('client1', 'client1%00'), 'CLIENTID'],
      [GET.replace('client1', '..%2f'), 'CLIENTID'],
      [GET.replace('host.sh', '..'), 'FILENAME'],
      [GET.replace('host.sh', '%2e'), 'FILENAME'],
      [`${GET}&FILENAME=other.sh`, 'FILENAME'],
      [`${GET}\n`, 'FILENAME'],
      [`${GET}%0a`, 'FILENAME'],
      [`${GET}&`, 'FILENAME'],
    ];
    for (const [query, field] of refusals) {
      assert.throws(() => parseGetQuery(query), { field, message: `${field} is missing, out of order or not allowed` });
    }
    const fields = ['snapshot', 'STDOUT_LENGTH=3', 'STDERR_LENGTH=0', 'STDENV_LENGTH=4'];
    for (const [index, field] of ['RUNTYPE', 'STDOUT_LENGTH', 'STDERR_LENGTH', 'STDENV_LENGTH'].entries()) {
      for (const bad of ['=', '=-1', '=1e3', '=0x1', '=1.0', '=%2b1', `=${'9'.repeat(21)}`]) {
        const query = PUT.replace(fields[index] ?? '', index === 0 ? `x${bad}` : `${field}${bad}`);
        assert.throws(() => parsePutQuery(query), { field });
      }
    }
  });

  it('are decoded once', () => {
    assert.throws(() => parseGetQuery(GET.replace('host', 'a%252e')), { field: 'FILENAME' });
    assert.throws(() => parseGetQuery(GET.replace('host', 'a%c0%ae')), { field: 'FILENAME' });
    assert.equal(parseGetQuery(GET.replace('host.sh', '%68ost%2Esh')).fileName, 'host.sh');
    assert.equal(parseGetQuery(encodeEverything(GET.replaceAll('+', ' '))).clientId, 'client1');
  });
});

describe('job ids', () => {
  it('look like that of the article', () => {
    const parts = { serverId: 'server_1', epochSeconds: 1085355126, sequence: 723 };
    assert.equal(formatJobId(parts), 'server_1_1085355126_00723');
    assert.deepEqual(findJobIdParts('server_1_1085355126_00723'), parts);
  });

  it('survive the round trip and are job ids', () => {
    const serverId = oneOf(/^[A-Za-z0-9_.-]{1,64}$/);
    const parts = plainRecord({ serverId, epochSeconds: fc.nat(9_999_999_999), sequence: fc.nat(9_999_999_999) });
    fc.assert(
      fc.property(parts, (id) => {
        assert.deepEqual(findJobIdParts(formatJobId(id)), id);
        assert.equal(findJobIdTime(formatJobId(id)), id.epochSeconds);
        assert.ok(isJobId(formatJobId(id)));
      }),
    );
  });

  it('have no parts in another format; those with parts are written the same again', () => {
    for (const text of ['', 'a_1085355126_723', 'a_1085355126_000723', 'a_108535512_00723', '_1085355126_00723']) {
      assert.equal(findJobIdParts(text), undefined, text);
      assert.equal(findJobIdTime(text), undefined, text);
    }
    for (const text of [
      'a/b_1085355126_00723',
      'a_1085355126_00723\n',
      ' a_1085355126_00723',
      `${'x'.repeat(65)}_1085355126_00723`,
    ]) {
      assert.equal(findJobIdParts(text), undefined, text);
    }
    fc.assert(
      fc.property(oneOf(/^[a_.\d]{0,4}_\d{9,11}_\d{4,11}$/), (text) => {
        const parts = findJobIdParts(text);
        assert.equal(findJobIdTime(text), parts?.epochSeconds, text);
        if (parts) assert.equal(formatJobId(parts), text);
      }),
      { numRuns: 1000 },
    );
  });
});

const ARTICLE_LINE =
  '2004-05-23 16:32:06 server_1_1085355126_00723 client1 192.168.1.120 GET client1 host.sh 0 19 0 200 -- Success';
const ARTICLE_FIELDS: LogLine = {
  time: '2004-05-23 16:32:06',
  jobId: 'server_1_1085355126_00723',
  remoteUser: 'client1',
  remoteAddress: '192.168.1.120',
  method: 'GET',
  clientId: 'client1',
  fileName: 'host.sh',
  bytesReceived: 0,
  bytesSent: 19,
  seconds: 0,
  status: 200,
  message: 'Success',
};

describe('the log line', () => {
  it('is that of the article', () => {
    assert.equal(formatLogLine(ARTICLE_FIELDS), ARTICLE_LINE);
    assert.deepEqual(parseLogLine(ARTICLE_LINE), ARTICLE_FIELDS);
  });

  it('survives the round trip', () => {
    const word = fc.option(
      oneOf(/^[\x21-\x24\x26-\x7e]{1,40}$/).filter((text) => text !== '-'),
      { nil: undefined },
    );
    const line = plainRecord({
      time: fc
        .date({ min: new Date(0), max: new Date('9999-12-30'), noInvalidDate: true })
        .map((date) => formatTime(date, true)),
      jobId: word,
      remoteUser: word,
      remoteAddress: word,
      method: word,
      clientId: word,
      fileName: word,
      bytesReceived: fc.option(byteCount, { nil: undefined }),
      bytesSent: byteCount,
      seconds: fc.nat(),
      status: fc.integer({ min: 200, max: 599 }),
      message: oneOf(/^[\x20-\x7e]{0,80}$/),
    });
    fc.assert(fc.property(line, (fields) => assert.deepEqual(parseLogLine(formatLogLine(fields)), fields)));
  });

  it('stays one line with the same fields whatever a client sends', () => {
    const value = fc.option(hostileText, { nil: undefined });
    const fields = plainRecord({
      jobId: value,
      remoteUser: value,
      remoteAddress: value,
      method: value,
      clientId: value,
      fileName: value,
      message: hostileText,
    });
    fc.assert(
      fc.property(fields, (given) => {
        const line = formatLogLine({ ...ARTICLE_FIELDS, ...given });
        assert.match(line, /^[\x20-\x7e]*$/);
        const { time, bytesReceived, bytesSent, seconds, status, ...words } = parseLogLine(line);
        assert.deepEqual([time, bytesReceived, bytesSent, seconds, status], ['2004-05-23 16:32:06', 0, 19, 0, 200]);
        for (const [name, text] of Object.entries(given)) {
          if (name === 'message') continue;
          const written = words[name as 'method'];
          // An empty field is `-`; every other value differs from that and decodes to what was
          // sent.
          assert.equal(written === undefined, text === undefined || text === '');
          if (text !== undefined && !/\p{Cs}/u.test(text) && text.length < 1000)
            assert.equal(decodeURIComponent(written ?? ''), text);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('cuts long values, even in the middle of a character', () => {
    const fileName = `${'x'.repeat(1023)}\u{1f600}`;
    const line = formatLogLine({ ...ARTICLE_FIELDS, fileName, message: 'm'.repeat(5000) });
    assert.equal(parseLogLine(line).fileName, `${'x'.repeat(1023)}%ef%bf%bd`);
    assert.equal(parseLogLine(line).message.length, 1024);
  });

  it('ends in hyphens, as in the original, when there is nothing to report', () => {
    const line = ARTICLE_LINE.replace(' Success', '');
    assert.deepEqual(parseLogLine(line), { ...ARTICLE_FIELDS, message: '' });
    assert.throws(() => parseLogLine(`${line}Success`), SyntaxError);
  });

  it('is refused in another format', () => {
    const lines = [
      '',
      ARTICLE_LINE.replace(' 0 19 ', ' 19 '),
      ARTICLE_LINE.replace(' 0 19 ', ' 0 0 19 '),
      ARTICLE_LINE.replace(' 0 19 ', '  0 19 '),
      ARTICLE_LINE.replace(' -- ', ' - '),
      ARTICLE_LINE.replace(' 200 ', ' OK '),
      ARTICLE_LINE.replace(' 200 ', ' - '),
      ARTICLE_LINE.replace(' 19 ', ' -19 '),
      ARTICLE_LINE.replace(' 19 ', ' 1e3 '),
      ARTICLE_LINE.replace('2004-05-23 ', ''),
      ARTICLE_LINE.replace('2004-05-23', 'yesterday'),
      ...['2004-13-23', '2004-00-23', '2004-05-32', '2004-05-00'].map((day) => ARTICLE_LINE.replace('2004-05-23', day)),
      ...['24:00:00', '16:60:06', '16:32:60'].map((hour) => ARTICLE_LINE.replace('16:32:06', hour)),
      ` ${ARTICLE_LINE}`,
      `${ARTICLE_LINE}\n`,
      `${ARTICLE_LINE}\n${ARTICLE_LINE}`,
    ];
    for (const line of lines) assert.throws(() => parseLogLine(line), SyntaxError, JSON.stringify(line));
  });
});
