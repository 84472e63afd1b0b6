// The code blocks of docs/guide/authentication.md, so that tests run what the administrator reads.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const GUIDE = join(import.meta.dirname, '..', '..', 'docs', 'guide', 'authentication.md');

/** The block whose fence is labelled `<label>`. Throws unless there is exactly one. */
export function readBlock(label: string): string {
  const texts = readBlocks().flatMap(([name, text]) => (name === label ? [text] : []));
  if (texts.length !== 1) throw new Error(`${texts.length} blocks of ${GUIDE} are called ${label}`);
  return texts[0] ?? '';
}

/** All blocks, by the labels of their fences. */
export function readBlocks(): [label: string, text: string][] {
  const blocks = readFileSync(GUIDE, 'utf8').matchAll(/^```(.+?)\n(.*?)^```$/gms);
  return [...blocks].map(([, label = '', text = '']) => [label, text]);
}
