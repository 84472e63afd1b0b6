// Runs one raw vector against a target: makes its tree, sends its bytes, and compares the results
// with it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { configure } from '../../scripts/site.ts';
import type { Target } from './target.ts';
import { findWebUser, readFiles, readLog, resetTree } from './tree.ts';
import { findDifferences, type Vector } from './vectors.ts';

const LOG_WAIT_MS = 10_000;

/** Makes the tree of a vector, sends its bytes, and resolves with the answer. */
function askVector({ site, ask }: Target, vector: Vector): Promise<string> {
  resetTree(site.base, findWebUser(), vector.setup);
  const settings = vector.settings.map((line) => line.replaceAll('{base}', site.base)).join('\n');
  // Lines of a vector are written as they are; they need not be Key=value.
  configure(site, {}, settings);
  return ask(vector.request, vector);
}

/**
 * Runs a vector and checks that nothing differs from it. httpd kills a script three seconds after
 * its client has left; on a busy machine that can be before Node has started, without a line in the
 * log. Such a vector is tried again.
 */
export async function runVector(target: Target, vector: Vector): Promise<void> {
  const { site, kind } = target;
  let response = '';
  let isLogged = false;
  for (let tries = kind === 'httpd' && vector.httpdAnswers?.script === 'after' ? 4 : 1; tries > 0; tries--) {
    response = await askVector(target, vector);
    isLogged = existsSync(join(site.base, 'logfiles'));
    // httpd may answer before a script that it gave up has ended.
    if (!isLogged || (await hasLines(site.base, expectedLines(vector, kind)))) break;
  }
  const outcome = { response, log: isLogged ? readLog(site.base) : [], locker: readFiles(join(site.base, 'incoming')) };
  assert.deepEqual(findDifferences(vector, outcome, kind), []);
}

/** Waits until the log has this many lines; returns false if it does not get them. */
async function hasLines(base: string, count: number): Promise<boolean> {
  const deadline = Date.now() + LOG_WAIT_MS;
  while (readLog(base).length < count) {
    if (Date.now() > deadline) return false;
    await sleep(20);
  }
  return true;
}

function expectedLines(vector: Vector, kind: Target['kind']): number {
  return kind === 'httpd' && vector.httpdAnswers?.script === 'before' ? 0 : vector.log.length;
}
