// What commands about many clients take from their command lines.
import { InvalidArgumentError } from 'commander';
import { isTarget } from '../../fleet/groups.ts';

/** Client ids, globs and groups, with commas, added to those before. Throws InvalidArgumentError. */
export function collectTargets(text: string, before: readonly string[] = []): string[] {
  const words = text.split(',').filter((word) => word !== '');
  const wrong = words.find((word) => !isTarget(word));
  if (words.length === 0 || wrong !== undefined)
    throw new InvalidArgumentError(`${wrong ?? 'it'} is not a client id, a glob or a group.`);
  return [...before, ...words];
}

/** Where nobody says since when. */
export function monthAgo(): Date {
  return new Date(Date.now() - 30 * 86_400_000);
}
