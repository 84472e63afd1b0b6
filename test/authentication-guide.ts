// The blocks of code in docs/guide/authentication.md, so that the tests run what the administrator reads.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const GUIDE = join(import.meta.dirname, '..', 'docs', 'guide', 'authentication.md');

/** The block whose fence says ```` ```<label> ````. Throws when there is not exactly one. */
export function readBlock(label: string): string {
  const texts = readBlocks().flatMap(([name, text]) => (name === label ? [text] : []));
  if (texts.length !== 1) throw new Error(`${texts.length} blocks of ${GUIDE} are called ${label}`);
  return texts[0] ?? '';
}

/** Every block, by what its fence says. */
export function readBlocks(): [label: string, text: string][] {
  const blocks = readFileSync(GUIDE, 'utf8').matchAll(/^```(.+?)\n(.*?)^```$/gms);
  return [...blocks].map(([, label = '', text = '']) => [label, text]);
}
