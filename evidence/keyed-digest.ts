// HalfSipHash-2-4 with 64 bits of output (Aumasson and Bernstein,
// https://github.com/veorq/SipHash). It digests hundreds of thousands of short texts: for such
// texts, starting a digest in OpenSSL takes ten times as long as computing it.

export const KEY_BYTES = 8;
const LAST_ASCII = 0x7f;

/**
 * Digests texts one after another with a key. Without the key, nobody can construct texts that
 * collide.
 */
export class KeyedDigest {
  readonly key: Buffer;
  low = 0;
  high = 0;
  readonly #key0: number;
  readonly #key1: number;
  readonly #state = new Int32Array(4);

  constructor(key: Buffer) {
    this.key = key;
    this.#key0 = key.readInt32LE(0);
    this.#key1 = key.readInt32LE(4);
  }

  /**
   * Digests the first `length` characters of a text into `low` and `high`. Returns false for text
   * that is not ASCII; the two values are then meaningless.
   */
  take(text: string, length: number): boolean {
    const state = this.#state;
    state[0] = this.#key0;
    state[1] = this.#key1 ^ 0xee;
    state[2] = this.#key0 ^ 0x6c796765;
    state[3] = this.#key1 ^ 0x74656462;
    const whole = length & ~3;
    let all = 0;
    for (let at = 0; at < whole; at += 4) {
      const [a, b] = [text.charCodeAt(at), text.charCodeAt(at + 1)];
      const [c, d] = [text.charCodeAt(at + 2), text.charCodeAt(at + 3)];
      all |= a | b | c | d;
      mix(state, a | (b << 8) | (c << 16) | (d << 24), 2);
    }
    let rest = length << 24;
    for (let at = whole; at < length; at++) {
      const code = text.charCodeAt(at);
      all |= code;
      rest |= code << ((at - whole) << 3);
    }
    mix(state, rest, 2);
    state[2] = (state[2] ?? 0) ^ 0xee;
    mix(state, 0, 4);
    this.low = ((state[1] ?? 0) ^ (state[3] ?? 0)) >>> 0;
    state[1] = (state[1] ?? 0) ^ 0xdd;
    mix(state, 0, 4);
    this.high = ((state[1] ?? 0) ^ (state[3] ?? 0)) >>> 0;
    return all <= LAST_ASCII;
  }
}

function mix(state: Int32Array, input: number, rounds: number): void {
  let v0 = state[0] ?? 0;
  let v1 = state[1] ?? 0;
  let v2 = state[2] ?? 0;
  let v3 = (state[3] ?? 0) ^ input;
  for (let round = rounds; round > 0; round--) {
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
  }
  state[0] = v0 ^ input;
  state[1] = v1;
  state[2] = v2;
  state[3] = v3;
}
