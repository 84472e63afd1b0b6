// Splits a file into lines, block by block. Every line is a separate string: a slice of a longer
// string would keep all of it in memory.

/** The maximum length of a line; the server writes only shorter ones to its log. */
const MAX_LINE_BYTES = 64 * 1024;

export interface Cutter<Line> {
  /**
   * Parses and returns the lines that end in this block. The block may be overwritten afterwards.
   */
  cut(block: Buffer): Line[];
  /** Passes on the rest of the file after its last newline. */
  end(): Line[];
}

/**
 * Returns a cutter. `parse` receives each line and its offset in the input.
 *
 * @param holds a line without any of these texts need not be passed to `parse`
 */
export function makeCutter<Line>(
  parse: (text: string, offset: number) => Line | undefined,
  maxLineBytes = MAX_LINE_BYTES,
  holds?: readonly string[],
): Cutter<Line> {
  const needles = holds?.map((text) => Buffer.from(text));
  let rest: Buffer = Buffer.alloc(0);
  // Set in the middle of a line that is too long.
  let isSkipping = false;
  /** The offset of the block in the input. */
  let base = 0;
  const take = (bytes: Buffer, start: number, end: number, offset: number, lines: Line[]): void => {
    if (end - start > maxLineBytes) return;
    const line = parse(bytes.toString('utf8', start, end), offset);
    if (line !== undefined) lines.push(line);
  };
  return {
    cut(block) {
      const lines: Line[] = [];
      let start = 0;
      let end = block.indexOf(10);
      if (end >= 0 && (isSkipping || rest.length > 0)) {
        const first = Buffer.concat([rest, block.subarray(0, end)]);
        if (!isSkipping) take(first, 0, first.length, base - rest.length, lines);
        [rest, isSkipping] = [Buffer.alloc(0), false];
        start = end + 1;
        end = block.indexOf(10, start);
      }
      if (needles && end >= 0) {
        const whole = block.subarray(0, block.lastIndexOf(10) + 1);
        for (const from of findStarts(whole, start, needles))
          take(block, from, block.indexOf(10, from), base + from, lines);
        start = whole.length;
      } else
        for (; end >= 0; end = block.indexOf(10, start)) {
          take(block, start, end, base + start, lines);
          start = end + 1;
        }
      rest = isSkipping ? rest : Buffer.concat([rest, block.subarray(start)]);
      if (rest.length > maxLineBytes) [rest, isSkipping] = [Buffer.alloc(0), true];
      base += block.length;
      return lines;
    },
    end() {
      const lines: Line[] = [];
      if (rest.length > 0) take(rest, 0, rest.length, base - rest.length, lines);
      return lines;
    },
  };
}

/**
 * The offsets of the lines that contain at least one of the texts. `start` is the beginning of a
 * line.
 */
function findStarts(block: Buffer, start: number, needles: readonly Buffer[]): number[] {
  const found = new Set<number>();
  for (const needle of needles)
    for (let hit = block.indexOf(needle, start); hit >= 0; hit = block.indexOf(needle, block.indexOf(10, hit)))
      found.add(Math.max(start, block.lastIndexOf(10, hit) + 1));
  return [...found].sort((a, b) => a - b);
}
