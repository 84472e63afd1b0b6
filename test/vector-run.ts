// Runs one raw vector against a target: makes its tree, sends its bytes, and compares the results
// with it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { configure } from '../scripts/site.ts';
import type { Target } from './target.ts';
import { findWebUser, readFiles, readLog, resetTree } from './tree.ts';
import { findDifferences, type Vector } from './vectors.ts';

const LOG_WAIT_MS = 20_000;

/** Makes the tree of a vector, sends its bytes, and resolves with the answer. */
function askVector({ site, ask }: Target, vector: Vector): Promise<string> {
  resetTree(site.base, findWebUser(), vector.setup);
  const settings = vector.settings.map((line) => line.replaceAll('{base}', site.base)).join('\n');
  // Lines of a vector are written as they are; they need not be Key=value.
  configure(site, {}, settings);
  return ask(vector.request, vector);
}

/** Runs a vector and checks that nothing differs from it. */
export async function runVector(target: Target, vector: Vector): Promise<void> {
  const { site, kind } = target;
  const response = await askVector(target, vector);
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
