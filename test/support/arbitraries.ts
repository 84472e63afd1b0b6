// Random values for property tests: well-formed names, and text that tries to break out of its
// context.
import fc from 'fast-check';

/**
 * Any characters, including lone surrogates; those that end lines, fields and quotes are more
 * frequent.
 */
export const hostileText = fc.string({
  unit: fc.oneof(
    fc.constantFrom(...'\0\t\n\v\f\r =&%+#;-/\\"\'.[]\x7f\x85\xa0\xff\u2028\u{1f600}', '\ud800'),
    fc.string({ unit: 'grapheme' }),
  ),
});

export const jobId = fc.stringMatching(/^[\x21-\x7e]{1,255}$/);

/** Whole numbers of bytes, including the largest exact one. */
export const byteCount = fc.oneof(fc.constantFrom(0, 1, Number.MAX_SAFE_INTEGER), fc.maxSafeNat());

/** fc.record without its null prototypes, which deepEqual distinguishes from ordinary objects. */
export function plainRecord<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>;
}

/** Every byte of the UTF-8 form as `%hh`. */
export function encodeEverything(text: string): string {
  return Array.from(Buffer.from(text), (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
}
