// Witnesses of a log (c2sp.org/tlog-cosignature), and the lines that they add to a checkpoint.
import { generateKeyPairSync, sign } from 'node:crypto';
import { keyId, rawKey } from '../../notes/ed25519.ts';
import { parseNote } from '../../notes/note.ts';

export interface TestWitness {
  verifierKey: string;
  /** The line below a checkpoint, with the cosignature changed by `change`. */
  cosign(text: string, time?: number, change?: (bytes: Buffer) => Buffer): string;
}

/** Makes the key of a witness. */
export function makeWitness(name: string): TestWitness {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const key = rawKey(publicKey);
  const id = keyId(name, 4, key);
  return {
    verifierKey: `${name}+${id}+${Buffer.concat([Buffer.from([4]), key]).toString('base64')}`,
    cosign(text, time = 1_790_000_000, change = (bytes) => bytes) {
      const stamp = Buffer.alloc(8);
      stamp.writeBigUInt64BE(BigInt(time));
      const message = `cosignature/v1\ntime ${time}\n${parseNote(Buffer.from(text)).text}`;
      const bytes = Buffer.concat([Buffer.from(id, 'hex'), stamp, sign(null, Buffer.from(message), privateKey)]);
      return `— ${name} ${change(bytes).toString('base64')}\n`;
    },
  };
}
