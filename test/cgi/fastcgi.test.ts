// FastCGI records: formatting and parsing are inverse, however the bytes are split, and for any
// input the parser either returns records or reports that there are none.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  type FastCgiRecord,
  formatBeginning,
  formatEnding,
  formatPairs,
  formatRecord,
  formatStream,
  PROTOCOL_STATUSES,
  parseBeginning,
  parsePairs,
  RECORD_TYPES,
  RecordParser,
} from 'node-cgi-compat/responder';
import { formatRequest } from '../support/fastcgi-client.ts';
import { randomNumbers } from '../support/locker-kills.ts';

const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
const MUTATED = 10_000 * Number(process.env.WEBJOB_TEST_RUNS ?? 1);

const records = fc.array(
  fc.record({
    type: fc.integer({ min: 0, max: 255 }),
    requestId: fc.integer({ min: 0, max: 65_535 }),
    content: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }),
  { maxLength: 8 },
);

const plain = (list: FastCgiRecord[]): unknown[] =>
  list.map((it) => [it.type, it.requestId, it.content.toString('hex')]);

/** Pushes bytes in pieces of these lengths, repeatedly. */
function pushInPieces(parser: RecordParser, bytes: Buffer, lengths: readonly number[]): FastCgiRecord[] {
  const found: FastCgiRecord[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const length = lengths[turn % lengths.length] ?? bytes.length;
    for (const it of parser.push(bytes.subarray(at, at + length)))
      found.push({ ...it, content: Buffer.from(it.content) });
    at += length;
  }
  return found;
}

describe('FastCGI records', () => {
  it('are encoded as the specification shows', () => {
    const record = formatRecord({ type: 6, requestId: 0x0102, content: Buffer.from('abc') });
    assert.equal(record.toString('hex'), '0106010200030500' + '6162630000000000');
    assert.equal(
      formatEnding(1, PROTOCOL_STATUSES.overloaded).toString('hex'),
      '0103000100080000' + '0000000002000000',
    );
    assert.equal(formatBeginning({ role: 1, keepConnection: true }).toString('hex'), '0001010000000000');
  });

  it('parse to what was written, however the bytes are cut', () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(records, lengths, (list, cuts) => {
        const bytes = Buffer.concat(list.map(formatRecord));
        assert.deepEqual(plain(pushInPieces(new RecordParser(), bytes, cuts)), plain(list));
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  it('may have any padding', () => {
    for (const padding of [0, 1, 255]) {
      const record = formatRecord({ type: 5, requestId: 9, content: Buffer.from('abcdefgh') });
      record[6] = padding;
      const bytes = Buffer.concat([record, Buffer.alloc(padding, 'p'), formatEnding(9, 0)]);
      for (const cut of [1, 7, 8, 9, 1000])
        assert.deepEqual(
          pushInPieces(new RecordParser(), bytes, [cut]).map((it) => it.type),
          [5, 3],
        );
    }
  });

  it('carry a stream of any length', () => {
    for (const length of [0, 1, 65_528, 65_529, 200_000]) {
      const bytes = Buffer.alloc(length, 'ab');
      const found = [...new RecordParser().push(Buffer.concat(formatStream(RECORD_TYPES.stdout, 3, bytes)))];
      assert.ok(Buffer.concat(found.map((it) => it.content)).equals(bytes), `${length} bytes`);
    }
  });

  it('parse to what was written even when they are of the longest kind', () => {
    const content = Buffer.alloc(65_535, 'x');
    const [found] = pushInPieces(new RecordParser(), formatRecord({ type: 5, requestId: 1, content }), [777]);
    assert.ok(found?.content.equals(content));
  });

  it('are refused in another version', () => {
    assert.throws(() => [...new RecordParser().push(Buffer.from('GET / HTTP/1.1'))], SyntaxError);
    assert.throws(() => [...new RecordParser().push(Buffer.from([0]))], SyntaxError);
  });
});

describe('a BEGIN_REQUEST record', () => {
  it('carries the role and the flags', () => {
    for (const beginning of [
      { role: 1, keepConnection: false },
      { role: 0xffff, keepConnection: true },
    ])
      assert.deepEqual(parseBeginning(formatBeginning(beginning)), beginning);
    assert.throws(() => parseBeginning(Buffer.alloc(7)), SyntaxError);
    assert.throws(() => parseBeginning(Buffer.alloc(9)), SyntaxError);
  });
});

describe('FastCGI names and values', () => {
  it('parse to what was written', () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: 'binary', maxLength: 40 }), fc.constant('x'.repeat(128)));
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text)), (pairs) => {
        assert.deepEqual(parsePairs(formatPairs(pairs)), pairs);
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  it('have lengths of one or four bytes', () => {
    assert.equal(formatPairs([['a', 'b'.repeat(127)]])[1], 127);
    assert.equal(formatPairs([['a', 'b'.repeat(128)]]).toString('hex', 1, 5), '80000080');
    assert.deepEqual(parsePairs(Buffer.from('\x01\x80\0\0\x01ab', 'latin1')), [['a', 'b']]);
  });

  it('are an error when they break off or announce a length beyond the end', () => {
    for (const text of ['\x01', '\x01\x01a', '\x80\0\0', '\xff\xff\xff\xff\x01', '\x01\xff\xff\xff\xffa'])
      assert.throws(() => parsePairs(Buffer.from(text, 'latin1')), SyntaxError);
  });
});

describe(`${MUTATED} mutated requests (seed ${SEED})`, () => {
  it('parse the same whole and in pieces, and never hold more bytes than were sent', () => {
    const random = randomNumbers(SEED);
    const draw = (limit: number): number => Math.floor(random() * limit);
    const good = formatRequest(
      1,
      { REQUEST_METHOD: 'PUT', QUERY_STRING: 'a=b', CONTENT_LENGTH: '40' },
      Buffer.alloc(40, 'x'),
      true,
    );
    let broken = 0;
    for (let run = 0; run < MUTATED; run += 1) {
      const bytes = Buffer.concat([good.subarray(0, draw(good.length + 1)), good.subarray(draw(good.length))]);
      for (let left = draw(6); left > 0 && bytes.length > 0; left -= 1) bytes[draw(bytes.length)] = draw(256);
      const whole = outcome(bytes, [bytes.length]);
      assert.deepEqual(outcome(bytes, [1 + draw(9), 1 + draw(50)]), whole, bytes.toString('hex'));
      if (whole.at(-1) === 'SyntaxError') broken += 1;
      const held = whole.reduce((sum: number, it) => sum + (Array.isArray(it) ? it[2].length / 2 : 0), 0);
      assert.ok(held <= bytes.length);
    }
    assert.ok(broken > MUTATED / 50 && broken < MUTATED, `${broken} were none`);
  });
});

/** The records, the meaning of their contents, and the error that ended them. */
function outcome(bytes: Buffer, lengths: readonly number[]): (string | [number, number, string])[] {
  const found: (string | [number, number, string])[] = [];
  const parser = new RecordParser();
  try {
    for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
      const end = at + (lengths[turn % lengths.length] ?? 1);
      for (const { type, requestId, content } of parser.push(bytes.subarray(at, end))) {
        found.push([type, requestId, content.toString('hex')]);
        if (type === RECORD_TYPES.params) parsePairs(content);
        if (type === RECORD_TYPES.beginRequest) parseBeginning(content);
      }
      at = end;
    }
  } catch (error) {
    assert.ok(error instanceof SyntaxError, String(error));
    found.push('SyntaxError');
  }
  return found;
}
