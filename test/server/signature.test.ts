// Signatures: which files are sent as a header, that nothing in them or in a job id becomes a
// second header under httpd, and that a link that is swapped meanwhile never gives access to
// anything outside.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { endSwapper, startSwapper } from '../support/hooks-link-race.ts';
import { formatHead, startCommandSite } from '../support/hooks-site.ts';
import { sendRaw } from '../support/target.ts';
import { part } from '../support/thorough.ts';

const folder = mkdtempSync(join(tmpdir(), 'webjob-signature-'));
after(() => rmSync(folder, { recursive: true }));

/** The signature for each of the paths below `root`. */
async function findAll(root: string, paths: string[]): Promise<(string | null)[]> {
  const reader = join(import.meta.dirname, '..', 'support', 'hooks-signature-reader.ts');
  const child = spawn(process.execPath, [reader, root], { stdio: ['pipe', 'pipe', 'ignore'] });
  child.stdin.end(JSON.stringify(paths));
  const chunks: Buffer[] = [];
  for await (const chunk of child.stdout) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString()) as (string | null)[];
}

/** The signatures in files with these contents. */
function findEach(contents: string[]): Promise<(string | null)[]> {
  for (const [index, content] of contents.entries()) writeFileSync(join(folder, `${index}.sig`), content, 'latin1');
  return findAll(
    folder,
    contents.map((_, index) => `${index}.sig`),
  );
}

describe('a signature file', () => {
  it('has one line of 1 to 255 printable characters, or counts as missing', async () => {
    const byte = fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 0x20, max: 0x7e }) },
      { weight: 1, arbitrary: fc.constantFrom(0, 9, 10, 13, 0x7f, 0x80, 0xff) },
    );
    const start = fc.array(byte, { maxLength: 6 }).map((bytes) => String.fromCharCode(...bytes));
    const end = fc.constantFrom('', '\n', '\r\n', '\r', '\n\n', ' \n');
    const contents = fc.sample(fc.tuple(start, end), 500).map((parts) => parts.join(''));
    const expected = contents.map((text) => {
      const line = text.endsWith('\r\n') ? text.slice(0, -2) : text.endsWith('\n') ? text.slice(0, -1) : text;
      return line !== '' && Array.from(line).every((c) => c >= ' ' && c <= '~') && line.trim() === line ? line : null;
    });
    assert.ok(expected.filter((line) => line !== null).length > 50);
    const found = await findEach(contents);
    for (const [index, text] of contents.entries()) assert.equal(found[index], expected[index], JSON.stringify(text));
  });

  it('is read up to its limit, however it ends and however much follows', async () => {
    const of = (length: number): string => 's'.repeat(length);
    const ends = ['', '\n', '\r\n'];
    assert.deepEqual(
      await findEach(ends.map((end) => of(255) + end)),
      ends.map(() => of(255)),
    );
    const lengths = [256, 257, 258, 259, 1000, 1_000_000];
    const more = ['\n', ' ', 'x', '\nWebJob-Payload-Signature: b', '\0'];
    const bad = ends.flatMap((end) => [
      ...lengths.map((length) => of(length) + end),
      ...more.map((text) => `${of(255)}\n${text}${end}`),
    ]);
    assert.deepEqual(new Set(await findEach(bad)), new Set([null]));
    await findEach(['good\n']);
    truncateSync(join(folder, '0.sig'), 1_000_000_000_000);
    assert.deepEqual(await findAll(folder, ['0.sig']), [null], 'a terabyte of nothing is not read');
  });

  it('is never one from outside when a link is swapped during the lookup', async () => {
    const root = join(folder, 'root');
    mkdirSync(join(root, 'real'), { recursive: true });
    mkdirSync(join(folder, 'outside'), { recursive: true });
    writeFileSync(join(root, 'real/a.sig'), 'inside\n');
    writeFileSync(join(folder, 'outside/a.sig'), 'outside\n');
    for (const [link, path, targets] of [
      ['a.sig', 'a.sig', ['real/a.sig', '../outside/a.sig']],
      ['folder', 'folder/a.sig', ['real', '../outside']],
    ] as const) {
      const swapper = await startSwapper(join(root, link), targets);
      try {
        const seen = new Set<string | null>();
        for (let tries = 0; seen.size < 2 && tries < 10; tries++) {
          for (const result of await findAll(root, Array(5_000).fill(path))) seen.add(result);
        }
        assert.deepEqual(seen, new Set(['inside', null]), link);
      } finally {
        await endSwapper(swapper);
      }
    }
  });
});

/** Names of the header lines of an answer, in order; a forged one would be among them. */
function headerNames(answer: string): string[] {
  const [, ...lines] = answer.slice(0, answer.indexOf('\r\n\r\n')).split(/\r\n|\r|\n/);
  return lines.map((line) => line.split(':')[0] ?? '');
}

const PLAIN = ['Server', 'Content-Type', 'Job-Id', 'Content-Length', 'Connection'];
const SIGNED = ['Server', 'Content-Type', 'Job-Id', 'WebJob-Payload-Signature', 'Content-Length', 'Connection'];

for (const mpm of part(['event', 'prefork'] as const, 1)) {
  describe(`signature headers under ${mpm}`, async () => {
    const its = await startCommandSite({ mpm });
    after(its.close);
    beforeEach(its.reset);
    const signature = join(its.site.profiles, 'client1/host.sh.sig');
    const ask = (method: 'GET' | 'PUT', jobId?: string): Promise<string> =>
      sendRaw(its.server.port, Buffer.from(formatHead(method, { ...(jobId !== undefined && { jobId }) }), 'latin1'));

    it('are valid, whatever the signature file contains', async () => {
      its.configure({});
      const forgeries = [
        'good\r\nX-Forged: 1',
        'good\nX-Forged: 1\n',
        '\r\n\r\nbody',
        'good\rX-Forged: 1',
        '\nX-Forged: 1',
        'good\0\r\nX-Forged: 1',
      ];
      const encoded = [
        'good\x85X-Forged: 1',
        'good\u2028X-Forged: 1',
        'good\xe5\x98\x8a\xe5\x98\x8dX-Forged: 1',
        'good\x1b[2J',
        `${'x'.repeat(254)}\r\nX-Forged: 1`,
      ];
      // Both treat them the same; here neither makes a header of them.
      const contents = mpm === 'event' ? [...forgeries, ...encoded] : forgeries.slice(0, 3);
      for (const content of contents) {
        writeFileSync(signature, content);
        const answer = await ask('GET');
        assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
        assert.deepEqual(headerNames(answer), PLAIN, JSON.stringify(content));
      }
      const told = its
        .errors()
        .split('\n')
        .filter((line) => line.includes('signature client1/host.sh.sig: not one line'));
      assert.equal(told.length, contents.length);
      for (const content of ['%0d%0aX-Forged: 1', 'good\\r\\nX-Forged: 1', 'a: b: c', `${'x'.repeat(255)}\n`]) {
        writeFileSync(signature, content);
        const answer = await ask('GET');
        assert.deepEqual(headerNames(answer), SIGNED);
        assert.ok(answer.includes(`\r\nWebJob-Payload-Signature: ${content.trim()}\r\n`));
      }
      rmSync(signature);
    });

    it('contain nothing of the job id that a client sends', async () => {
      its.configure({ PutNameFormat: '%pid' });
      const ids = [
        'forged',
        'a:X-Forged:1',
        '%0d%0aX-Forged:1',
        'a\rX-Forged: 1',
        'a\u0085X',
        'x'.repeat(255),
        '\u00e9',
        'a\tb',
        'a\'"<>',
      ];
      for (const jobId of ids) {
        for (const method of ['GET', 'PUT'] as const) {
          const answer = await ask(method, jobId);
          // httpd itself refuses a malformed line.
          if (answer.startsWith('HTTP/1.1 400 ')) continue;
          assert.deepEqual(headerNames(answer), method === 'GET' ? PLAIN : PLAIN.filter((name) => name !== 'Job-Id'));
          assert.ok(!answer.includes(jobId) && !/forged/i.test(answer), JSON.stringify(jobId));
        }
      }
    });

    it('contain one of two signatures, or none, while the file is replaced', async () => {
      its.configure({});
      const outside = join(its.site.base, 'secret.sig');
      writeFileSync(outside, 'outside\n');
      writeFileSync(`${signature}.inside`, 'inside\n');
      const swapper = await startSwapper(signature, ['host.sh.sig.inside', '../../secret.sig']);
      try {
        for (let count = 0; count < 12; count++) {
          const answer = await ask('GET');
          assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
          assert.ok(!answer.includes('outside'));
        }
      } finally {
        await endSwapper(swapper);
      }
      rmSync(signature);
      renameSync(`${signature}.inside`, signature);
      assert.deepEqual(headerNames(await ask('GET')), SIGNED);
    });
  });
}
