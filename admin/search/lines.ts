// Finds the matching lines of a stream piece by piece, in the memory of one piece and one line.
import { StringDecoder } from 'node:string_decoder';
import { findLiterals } from './literals.ts';

export interface Hit {
  /** Counted from 1. */
  line: number;
  text: string;
}

/**
 * A longer line is split. For the search each part is a line of its own, but it counts as one in
 * line numbers.
 */
export const MAX_LINE_LENGTH = 64 * 1024;

const PATTERN = /^\/(.+)\/(i?)$/s;

/**
 * Texts that every matching line contains: the text itself, or those derived from /re/ or /re/i.
 */
export function textsOf(text: string): string[] {
  const [, source, flags] = PATTERN.exec(text) ?? [];
  return source === undefined ? [text] : findLiterals(source, flags === 'i');
}

/** Compiles a text, /re/ or /re/i into a test for a line. Throws SyntaxError. */
export function compileSearch(text: string): (line: string) => boolean {
  const [, source, flags] = PATTERN.exec(text) ?? [];
  if (source === undefined) return (line) => line.includes(text);
  const pattern = new RegExp(source, flags);
  return (line) => pattern.test(line);
}

/** Yields the matching lines, decoded as UTF-8. Invalid bytes become U+FFFD. */
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
