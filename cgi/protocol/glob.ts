// Names with wildcards, as operators type them.

/**
 * Whether a glob matches a whole text: `*` stands for any characters, `?` for one. The time is at
 * most the product of both lengths.
 */
export function matchesGlob(glob: string, text: string): boolean {
  let [at, star, retry] = [0, -1, 0];
  for (let next = 0; next < text.length; ) {
    if (glob[at] === '?' || (glob[at] === text[next] && glob[at] !== '*')) {
      at++;
      next++;
    } else if (glob[at] === '*') {
      star = at++;
      retry = next;
    } else if (star >= 0) {
      at = star + 1;
      next = ++retry;
    } else {
      return false;
    }
  }
  return /^\**$/.test(glob.slice(at));
}
