// Verifies Ed25519 signatures of messages that arrive in pieces (RFC 8032, section 5.1.7). OpenSSL
// needs the whole message in memory, and accepts none over 2 GiB. The message enters a signature
// only through one SHA-512, whose first input is known in advance.
import { createHash } from 'node:crypto';
import { Point } from '@noble/ed25519';

/** Verifies a signature piece by piece. */
export interface Verifier {
  update(piece: Uint8Array): void;
  /** Called once, at the end. */
  isGood(): boolean;
}

/**
 * Begins to verify a signature. Accepts and rejects exactly the same signatures as `crypto.verify`
 * of Node 24.
 *
 * @param publicKey the 32 bytes of the key
 * @param signature the signature to verify
 */
export function verifyEd25519(publicKey: Buffer, signature: Buffer): Verifier {
  const hash = createHash('sha512').update(signature.subarray(0, 32)).update(publicKey);
  return {
    update: (piece) => hash.update(piece),
    isGood: () => {
      const digest = littleEndian(hash.digest());
      try {
        return isSigned(publicKey, signature, digest);
      } catch {
        // The bytes are not a point of the curve.
        return false;
      }
    },
  };
}

/** R must be [S]B - [k]A, byte for byte. With a key of small order anyone could make signatures. */
function isSigned(publicKey: Buffer, signature: Buffer, digest: bigint): boolean {
  const order = Point.CURVE().n;
  const S = littleEndian(signature.subarray(32));
  if (signature.length !== 64 || S >= order) return false;
  const [A, R] = [publicKey, signature.subarray(0, 32)].map((bytes) => Point.fromBytes(bytes, false));
  if (!A || !R || A.isSmallOrder() || R.isSmallOrder()) return false;
  const sum = Point.BASE.multiplyUnsafe(S).subtract(A.multiplyUnsafe(digest % order));
  return R.equals(sum);
}

function littleEndian(bytes: Buffer): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex') || '0'}`);
}
