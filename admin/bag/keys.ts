// Where the public keys of a package are.
import type { KeyObject } from 'node:crypto';
import type { BagWriter } from './writer.ts';

/** How many of which witnesses must have cosigned each checkpoint. */
export const POLICY = 'data/keys/witnesses/policy';

/** A key is in a file of its own, named like the key id that signature lines begin with. */
export function addKey(bag: BagWriter, folder: string, id: string, key: KeyObject): void {
  const path = `data/keys/${folder}/${id}.pem`;
  if (!bag.has(path)) bag.addText(path, key.export({ type: 'spki', format: 'pem' }));
}
