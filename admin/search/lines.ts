// Lines of a stream that match, read piece by piece: a stream of any size takes the memory of one piece and one line.
import { StringDecoder } from 'node:string_decoder';
import { findLiterals } from './literals.ts';

export interface Hit {
  /** From 1. */
  line: number;
  text: string;
}

/** A longer line is cut into several, of which each counts as one of its own for the search, and none in the number of lines. */
export const MAX_LINE_LENGTH = 64 * 1024;

const PATTERN = /^\/(.+)\/(i?)$/s;

/** Texts that a line which matches holds: the text itself, or what is known of /re/ or /re/i. */
export function textsOf(text: string): string[] {
  const [, source, flags] = PATTERN.exec(text) ?? [];
  return source === undefined ? [text] : findLiterals(source, flags === 'i');
}

/** Tells whether a line matches: a text, or /re/ or /re/i. Throws SyntaxError. */
export function compileSearch(text: string): (line: string) => boolean {
  const [, source, flags] = PATTERN.exec(text) ?? [];
  if (source === undefined) return (line) => line.includes(text);
  const pattern = new RegExp(source, flags);
  return (line) => pattern.test(line);
}

/** The lines that match, decoded as UTF-8. What is no UTF-8 is U+FFFD. */
export async function* searchLines(
  stream: AsyncIterable<Buffer>,
  matches: (line: string) => boolean,
): AsyncGenerator<Hit> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  let line = 1;
  for await (const piece of stream) {
    const lines = (rest + decoder.write(piece)).split('\n');
    rest = lines.pop() ?? '';
    for (const text of lines) {
      if (matches(text)) yield { line, text };
      line++;
    }
    for (; rest.length > MAX_LINE_LENGTH; rest = rest.slice(MAX_LINE_LENGTH)) {
      const text = rest.slice(0, MAX_LINE_LENGTH);
      if (matches(text)) yield { line, text };
    }
  }
  rest += decoder.end();
  if (rest !== '' && matches(rest)) yield { line, text: rest };
}
