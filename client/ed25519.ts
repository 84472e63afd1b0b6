// Ed25519 of a message that comes in pieces (RFC 8032, section 5.1.7). OpenSSL checks one only when it lies in memory as a whole, and none
// over 2 GiB; yet all that a signature needs of the message is one SHA-512, whose beginning is known before the message comes. What is left
// is arithmetic on public numbers, so that it need not take the same time for all of them. It takes and refuses what Node 24 does.
import { createHash } from 'node:crypto';

/** Of the field, section 5.1. */
const P = 2n ** 255n - 19n;
/** The order of the base point. */
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = modulo(-121665n * inverse(121666n));
const ROOT_OF_MINUS_1 = power(2n, (P - 1n) / 4n);

/** Extended homogeneous coordinates, section 5.1.4: x = X / Z, y = Y / Z, x * y = T / Z. */
interface Point {
  X: bigint;
  Y: bigint;
  Z: bigint;
  T: bigint;
}

const NEUTRAL: Point = { X: 0n, Y: 1n, Z: 1n, T: 0n };
const BASE = decode(Buffer.alloc(32, 0x66).fill(0x58, 0, 1)) ?? NEUTRAL;

/** Tells of a message, piece by piece, whether it is the one that was signed. */
export interface Verifier {
  update(piece: Uint8Array): void;
  /** Once, at the end. */
  isGood(): boolean;
}

/** @param publicKey its 32 bytes; @param signature the bytes that may be one */
export function verifyEd25519(publicKey: Buffer, signature: Buffer): Verifier {
  const hash = createHash('sha512').update(signature.subarray(0, 32)).update(publicKey);
  return {
    update: (piece) => hash.update(piece),
    isGood: () => isSigned(publicKey, signature, littleEndian(hash.digest()) % L),
  };
}

/** R must be [S]B - [k]A, byte for byte. */
function isSigned(publicKey: Buffer, signature: Buffer, k: bigint): boolean {
  const [A, R] = [decode(publicKey), decode(signature.subarray(0, 32))];
  const S = littleEndian(signature.subarray(32));
  if (!A || !R || isOfSmallOrder(A) || isOfSmallOrder(R) || signature.length !== 64 || S >= L) return false;
  const minusA = { ...A, X: modulo(-A.X), T: modulo(-A.T) };
  let sum = NEUTRAL;
  for (let bit = 252n; bit >= 0n; bit -= 1n) {
    sum = add(sum, sum);
    if ((S >> bit) & 1n) sum = add(sum, BASE);
    if ((k >> bit) & 1n) sum = add(sum, minusA);
  }
  return encode(sum).equals(signature.subarray(0, 32));
}

/** Eight times such a point is nothing: for a key of these anybody could make signatures. */
function isOfSmallOrder(point: Point): boolean {
  const twice = add(point, point);
  const fourTimes = add(twice, twice);
  return add(fourTimes, fourTimes).X === 0n;
}

/** The formulas of section 5.1.4 hold for all points, also for two that are the same. */
function add(a: Point, b: Point): Point {
  const A = modulo((a.Y - a.X) * (b.Y - b.X));
  const B = modulo((a.Y + a.X) * (b.Y + b.X));
  const C = modulo(2n * D * modulo(a.T * b.T));
  const E = B - A;
  const F = 2n * a.Z * b.Z - C;
  const G = 2n * a.Z * b.Z + C;
  const H = B + A;
  return { X: modulo(E * modulo(F)), Y: modulo(modulo(G) * H), Z: modulo(modulo(F) * modulo(G)), T: modulo(E * H) };
}

/** Section 5.1.2: y, and in the highest bit whether x is odd. */
function encode({ X, Y, Z }: Point): Buffer {
  const byZ = inverse(Z);
  const bytes = Buffer.from(
    modulo(Y * byZ)
      .toString(16)
      .padStart(64, '0'),
    'hex',
  ).reverse();
  if (modulo(X * byZ) & 1n) bytes.writeUInt8(bytes.readUInt8(31) | 0x80, 31);
  return bytes;
}

/** Section 5.1.3; undefined for bytes that are no point. */
function decode(bytes: Buffer): Point | undefined {
  const number = littleEndian(bytes);
  const y = modulo(number & (2n ** 255n - 1n));
  const isOdd = number >> 255n === 1n;
  const u = modulo(y * y - 1n);
  const v = modulo(D * y * y + 1n);
  const candidate = modulo(u * power(v, 3n) * power(modulo(u * power(v, 7n)), (P - 5n) / 8n));
  const square = modulo(v * candidate * candidate);
  if (square !== u && square !== modulo(-u)) return undefined;
  const root = square === u ? candidate : modulo(candidate * ROOT_OF_MINUS_1);
  const x = (root & 1n) === (isOdd ? 1n : 0n) ? root : modulo(-root);
  return { X: x, Y: y, Z: 1n, T: modulo(x * y) };
}

function littleEndian(bytes: Buffer): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex') || '0'}`);
}

function modulo(number: bigint): bigint {
  const rest = number % P;
  return rest < 0n ? rest + P : rest;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let square = base, left = exponent; left > 0n; left >>= 1n) {
    if (left & 1n) result = modulo(result * square);
    square = modulo(square * square);
  }
  return result;
}

/** By Fermat's little theorem. */
function inverse(number: bigint): bigint {
  return power(modulo(number), P - 2n);
}
