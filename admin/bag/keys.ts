// The paths of the public keys in a package.
import type { KeyObject } from 'node:crypto';
import type { BagWriter } from './writer.ts';

/** The policy that says which witnesses must have cosigned each checkpoint. */
export const POLICY = 'data/keys/witnesses/policy';

/** Each key is in a file of its own, named after the key id at the beginning of signature lines. */
export function addKey(bag: BagWriter, folder: string, id: string, key: KeyObject): void {
  const path = `data/keys/${folder}/${id}.pem`;
  if (!bag.has(path)) bag.addText(path, key.export({ type: 'spki', format: 'pem' }));
}
