// Parses SIZE arguments: `500M`, `20G`. A kilobyte is a thousand bytes, as in the output of
// webjobctl.
import { InvalidArgumentError } from 'commander';

const UNITS = ['', 'k', 'm', 'g', 't'];

/** Parses a size to bytes. Throws InvalidArgumentError, to which commander adds the option. */
export function parseSize(text: string): number {
  const [, count, unit = ''] = /^([0-9]{1,12})([kmgt]?)b?$/.exec(text.toLowerCase()) ?? [];
  const bytes = Number(count) * 1000 ** UNITS.indexOf(unit);
  if (count === undefined || !Number.isSafeInteger(bytes))
    throw new InvalidArgumentError('a size is a number of bytes, or one with k, M, G or T, as in 20G.');
  return bytes;
}

/** Parses a count of at least 1. Throws InvalidArgumentError. */
export function parseCount(text: string): number {
  if (!/^[1-9][0-9]{0,8}$/.test(text)) throw new InvalidArgumentError('the number must be 1 or more.');
  return Number(text);
}
