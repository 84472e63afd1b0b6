// Every raw vector against every target: bytes in, bytes out, and what the log and the locker say afterwards.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { configure } from '../scripts/site.ts';
import { TARGETS, type Target } from './target.ts';
import { findWebUser, readFiles, readLog, resetTree } from './tree.ts';
import { findDifferences, readVectors, type Vector } from './vectors.ts';

const vectors = readVectors();
const LOG_WAIT_MS = 3_000;

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

for (const [name, start] of Object.entries(TARGETS)) {
  describe(`raw vectors against ${name}`, async () => {
    const target = await start();
    after(() => target.close());
    for (const vector of vectors) {
      if (vector.only && vector.only.kind !== target.kind) continue;
      it(`${vector.place} ${vector.name}`, () => runVector(target, vector));
    }
  });
}

async function runVector(target: Target, vector: Vector): Promise<void> {
  const { site, kind } = target;
  resetTree(site.base, findWebUser(), vector.setup);
  const settings = vector.settings.map((line) => line.replaceAll('{base}', site.base)).join('\n');
  // Lines of a vector are written as they stand: they may be no Key=value at all.
  configure(site, {}, settings);
  const response = await target.ask(vector.request, vector);
  const isLogged = existsSync(join(site.base, 'logfiles'));
  // httpd may answer before a script that it gave up has ended.
  for (
    let waited = 0;
    isLogged && readLog(site.base).length < expectedLines(vector, kind) && waited < LOG_WAIT_MS;
    waited += 20
  ) {
    await sleep(20);
  }
  const outcome = { response, log: isLogged ? readLog(site.base) : [], locker: readFiles(join(site.base, 'incoming')) };
  assert.deepEqual(findDifferences(vector, outcome, kind), []);
}

function expectedLines(vector: Vector, kind: Target['kind']): number {
  return kind === 'httpd' && vector.httpdAnswers?.script === 'before' ? 0 : vector.log.length;
}
