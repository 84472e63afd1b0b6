// Ed25519 of a message that comes in pieces (RFC 8032, section 5.1.7). OpenSSL checks one only when it lies in memory as a whole, and
// none over 2 GiB; yet all that a signature needs of the message is one SHA-512, whose beginning is known before the message comes.
import { createHash } from 'node:crypto';
import { Point } from '@noble/ed25519';

/** Checks piece by piece whether a message is the one that was signed. */
export interface Verifier {
  update(piece: Uint8Array): void;
  /** Once, at the end. */
  isGood(): boolean;
}

/**
 * Accepts and refuses what `crypto.verify` of Node 24 does.
 *
 * @param publicKey its 32 bytes
 * @param signature the bytes that may be one
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
        // Bytes that are no point of the curve.
        return false;
      }
    },
  };
}

/** R must be [S]B - [k]A, byte for byte. With a key of small order anybody could make signatures. */
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
