// Manifests in the functions behind client and webjobctl: the example of docs/protocol.md,
// formatting and parsing, and globs.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { matchesGlob } from 'webjob-protocol';
import { findMismatch, formatManifest, openManifest, parseManifest } from '../../notes/manifest.ts';
import { NoteError } from '../../notes/note.ts';
import { formatTrustedKey, parseTrustedKeys } from '../../notes/trust.ts';
import { HOUR, makeSigner, manifestOf } from '../support/signed-programs.ts';

describe('docs/protocol.md, section 10', () => {
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'protocol.md'), 'utf8');
  const section = page.slice(page.indexOf('\n## 10. '));
  const block = (start: string): string => {
    const from = section.indexOf(`\n    ${start}`) + 1;
    assert.ok(from > 0, start);
    return (
      section
        .slice(from)
        .split(/\n(?=\S)/)[0]
        ?.replace(/^ {4}/gm, '')
        .trimEnd()
        .concat('\n') ?? ''
    );
  };

  it('shows a manifest that verifies with its keys, for the program that it names', () => {
    const note = block('webjob-manifest/v1\n');
    const keys = parseTrustedKeys(block('site.example/alice+'));
    const { manifest, signers } = openManifest(Buffer.from(note), keys, 2);
    const program = '#!/bin/sh\nhostname\n';
    assert.deepEqual([manifest.name, manifest.size, signers.length], ['host.sh', program.length, 2]);
    assert.equal(manifest.sha256, createHash('sha256').update(program).digest('hex'));
    const at = new Date('2026-12-24T18:00:00Z');
    assert.equal(findMismatch(manifest, { name: 'host.sh', clientId: 'web-3', at }), undefined);
    assert.equal(findMismatch(manifest, { name: 'host.sh', clientId: 'db-3', at }), 'it is not for db-3');
  });
});

describe('the text of a manifest', () => {
  it('parses to what was written', () => {
    const seconds = fc.integer({ min: 0, max: 253_402_300_798 });
    const name = fc.stringMatching(/^[A-Za-z0-9_+.:-]{1,40}$/).filter((text) => text !== '.' && text !== '..');
    const globs = fc.array(fc.stringMatching(/^[A-Za-z0-9_*?-]{1,64}$/), { minLength: 1, maxLength: 5 });
    const number = fc.integer({ min: 0, max: 999_999_999_999_999 });
    fc.assert(
      fc.property(name, globs, number, number, seconds, (given, clients, size, serial, from) => {
        const times = { notBefore: new Date(from * 1000), notAfter: new Date((from + 1) * 1000) };
        const manifest = manifestOf('x', { name: given, clients, size, serial, ...times });
        assert.deepEqual(parseManifest(formatManifest(manifest)), manifest);
      }),
    );
  });

  for (const [what, more] of Object.entries({
    'a name with a slash': { name: 'a/b' },
    'a name of dots': { name: '..' },
    'no client': { clients: [] },
    'a client of another line': { clients: ['a\nsize 3'] },
    'a size that is no whole number': { size: 1.5 },
    'a serial over 15 digits': { serial: 1e15 },
    'an end that is its beginning': { notBefore: new Date(HOUR), notAfter: new Date(HOUR) },
    'a year of five digits': { notAfter: new Date(253_402_300_800_000) },
  }))
    it(`cannot be made with ${what}`, () => {
      assert.throws(() => formatManifest(manifestOf('x', more)), NoteError);
    });
});

describe('a glob of client ids', () => {
  it('matches what a shell matches with the same pattern', () => {
    const glob = fc.stringMatching(/^[ab*?]{0,8}$/);
    const id = fc.stringMatching(/^[ab]{0,8}$/);
    fc.assert(
      fc.property(glob, id, (pattern, text) => {
        const expected = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(text);
        assert.equal(matchesGlob(pattern, text), expected, `${pattern} ${text}`);
      }),
      { numRuns: 3000 },
    );
  });

  it('takes negligible time, however it is made', () => {
    const startedAt = performance.now();
    assert.equal(matchesGlob('*a'.repeat(32), 'a'.repeat(63)), true);
    assert.equal(matchesGlob(`${'*a'.repeat(31)}*b`, 'a'.repeat(64)), false);
    assert.ok(performance.now() - startedAt < 1000);
  });
});

describe('a file of trusted keys', () => {
  it('is read with comments, blanks and weights', () => {
    const [alice, bob] = [makeSigner('a'), makeSigner('b')];
    const keys = parseTrustedKeys(`# ours\n  ${alice.verifierKey}\t 99\r\n\n${bob.verifierKey}\n #x\n`);
    assert.deepEqual(
      keys.map(({ name, weight }) => [name, weight]),
      [
        ['a', 99],
        ['b', 1],
      ],
    );
    assert.deepEqual(keys.map(formatTrustedKey), [`${alice.verifierKey} 99`, `${bob.verifierKey} 1`]);
    assert.deepEqual(parseTrustedKeys(''), []);
  });
});
