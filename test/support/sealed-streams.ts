// Examiners for sealed streams, with Debian's age and with the package, and functions that open the
// streams.
import { spawnSync } from 'node:child_process';
import { Decrypter, generateHybridIdentity, generateX25519Identity, identityToRecipient } from 'age-encryption';

export interface Examiner {
  /** AGE-SECRET-KEY-… */
  identity: string;
  recipient: string;
}

export async function makeExaminer(kind: 'x25519' | 'hybrid' = 'x25519'): Promise<Examiner> {
  const identity = await (kind === 'hybrid' ? generateHybridIdentity() : generateX25519Identity());
  return { identity, recipient: await identityToRecipient(identity) };
}

/** Why Debian's age cannot be used here; undefined when it can. For node:test's `skip`. */
export const NO_AGE =
  spawnSync('age', ['--version']).status === 0 && spawnSync('age-keygen', ['--version']).error === undefined
    ? undefined
    : 'age is not installed';

/**
 * Opens sealed bytes with the package. Throws Error for a wrong identity and for bytes that were
 * changed.
 */
export async function open(sealed: Uint8Array, { identity }: Examiner): Promise<Buffer> {
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity);
  return Buffer.from(await decrypter.decrypt(sealed));
}
