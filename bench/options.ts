// Parses the command lines of the benchmarks.

/**
 * Parses a whole number from 1, with up to eight digits. Throws a RangeError that names the option.
 */
export function parseCount(name: string, text: string): number {
  if (!/^[1-9][0-9]{0,7}$/.test(text)) throw new RangeError(`--${name} is a whole number from 1`);
  return Number(text);
}
