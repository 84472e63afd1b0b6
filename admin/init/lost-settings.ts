// Settings that init --force would remove: those that someone changed in nph-webjob.cfg.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parseKeyValue } from 'webjob-conf';
import type { Step } from './compare.ts';

/**
 * Lists the settings of the existing nph-webjob.cfg, as `Key=value`, that the new one does not have
 * with the same value. Call it before the file is replaced.
 */
export function findLostSettings(steps: readonly Step[]): { file: string; lines: string[] } | undefined {
  const step = steps.find(({ path, state }) => basename(path) === 'nph-webjob.cfg' && state === 'differs');
  if (step?.content === undefined || !step.why.includes('content')) return undefined;
  const made = readSettings(step.content);
  const lines = [...readSettings(readFileSync(step.place, 'utf8'))]
    .filter(([name, { value }]) => made.get(name)?.value !== value)
    .map(([, { key, value }]) => `${key}=${value}`);
  return lines.length === 0 ? undefined : { file: step.place, lines };
}

/** The settings of a file, by key in lower case. */
function readSettings(text: string): Map<string, { key: string; value: string }> {
  return new Map(parseKeyValue(text).entries.map(({ key, value }) => [key.toLowerCase(), { key, value }]));
}
