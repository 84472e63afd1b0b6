// Where a command may write its output.
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import type { Site } from './site.ts';

/**
 * The absolute path of a directory to be made; `what` names it in messages. Throws Failure `usage`
 * for a path inside of the locker, `failed` when its parent does not exist.
 */
export function findPlace(option: string, given: string, what: string, { settings }: Site): string {
  const path = resolve(given);
  try {
    const real = join(realpathSync(dirname(path)), basename(path));
    const locker = realpathSync(settings.incomingDirectory);
    if (`${real}${sep}`.startsWith(`${locker}${sep}`))
      throw new Failure('usage', `${option} ${given} is in the locker`, `${what} beside uploads would be one of them`);
    return real;
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${(error as Error).message}`, undefined, { cause: error });
  }
}
