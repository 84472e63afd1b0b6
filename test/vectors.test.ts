// Every raw vector against every target: bytes in, bytes out, and what the log and the locker say afterwards.
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { TARGETS } from './target.ts';
import { runVector } from './vector-run.ts';
import { readVectors, type Vector } from './vectors.ts';

const vectors = readVectors();

describe('raw vectors', () => {
  it('are at least 60 and cover every status of this server', () => {
    assert.ok(vectors.length >= 60, `${vectors.length} vectors`);
    const seen = new Set(vectors.map((vector) => /^HTTP\/1\.1 (\d{3})/.exec(vector.response)?.[1]));
    for (const status of [
      200, 251, 404, 405, 450, 451, 452, 453, 454, 455, 456, 457, 458, 459, 470, 471, 472, 500, 507, 550, 551, 553,
    ]) {
      assert.ok(seen.has(String(status)), `no vector answers ${status}`);
    }
  });
});

/** Where httpd hands on what the script answers, the script alone would be asked the same once more. */
function isSeenUnderHttpd({ httpdAnswers, bareEnvironment }: Vector): boolean {
  return httpdAnswers === undefined && bareEnvironment.length === 0;
}

for (const [name, start] of Object.entries(TARGETS)) {
  describe(`raw vectors against ${name}`, async () => {
    const target = await start();
    after(() => target.close());
    for (const vector of vectors) {
      if (vector.only ? vector.only.kind !== target.kind : target.kind === 'bare' && isSeenUnderHttpd(vector)) continue;
      it(`${vector.place} ${vector.name}`, () => runVector(target, vector));
    }
  });
}
