// What the benchmarks take from their command lines.

/** A whole number from 1, of up to eight digits. Throws RangeError that names the option. */
export function parseCount(name: string, text: string): number {
  if (!/^[1-9][0-9]{0,7}$/.test(text)) throw new RangeError(`--${name} is a whole number from 1`);
  return Number(text);
}
