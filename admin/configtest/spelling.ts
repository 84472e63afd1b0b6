// Suggests the setting that was probably meant.

/**
 * The closest of the words, by the number of characters to change, insert, delete or swap;
 * undefined when none is close.
 */
export function findNearest(given: string, words: readonly string[]): string | undefined {
  const limit = Math.max(2, Math.floor(given.length / 4));
  const [best] = words
    .map((word) => ({ word, distance: countEdits(given.toLowerCase(), word.toLowerCase()) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance);
  return best?.word;
}

/** The Damerau-Levenshtein distance (optimal string alignment). */
function countEdits(a: string, b: string): number {
  let [before, last]: number[][] = [[], Array.from({ length: b.length + 1 }, (_, column) => column)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      let cost = Math.min((last?.[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last?.[j - 1] ?? 0) + (isSame ? 0 : 1));
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwap) cost = Math.min(cost, (before?.[j - 2] ?? 0) + 1);
      row.push(cost);
    }
    [before, last] = [last, row];
  }
  return last?.[b.length] ?? 0;
}
