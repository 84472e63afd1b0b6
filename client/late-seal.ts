// Seals kept runs, in place and before they are sent, whose webjob was killed or ran out of space
// before sealing them.
import { isSealed } from '../notes/result.ts';
import { Failure } from './failure.ts';
import type { KeptJob } from './late-signature.ts';
import { openResultSigner } from './result.ts';
import { finishSealing, openSealer, sealFailure, sealJob } from './seal.ts';
import type { ClientSettings } from './settings.ts';

/** Finishes a sealing that an earlier process began. Throws Failure `put`. */
export function finishKept(folder: string, shown: string): void {
  try {
    finishSealing(folder);
  } catch (error) {
    throw sealFailure(error, shown);
  }
}

/**
 * Seals a kept job that is not sealed yet, for the recipients that were chosen when it ran. Returns
 * true if the job was already sealed, false if it was sealed now and its files have changed. Throws
 * Failure `put`, and `settings` for an unusable key.
 */
export async function sealKept(
  settings: ClientSettings,
  { folder, shown, streams, resultKey, sealTo }: KeptJob & { sealTo: readonly string[] },
): Promise<boolean> {
  if (isSealed(streams.env)) return true;
  if (settings.resultKeyFile === '')
    throw new Failure('put', `${shown} is to be sealed, and signed with ${resultKey}`, 'add a line ResultKeyFile=...');
  const signer = openResultSigner(settings);
  const sealer = await openSealer(sealTo.join());
  const { out, err, env } = streams;
  try {
    await sealJob({ folder, out, err, record: env.toString() }, sealer, signer);
  } catch (error) {
    throw sealFailure(error, shown);
  }
  return false;
}
