// A checkpoint as earlier versions of webjobctl made them: a line of JSON. Whoever kept some can still hold a record against them.
import { type KeyObject, sign } from 'node:crypto';

/** The line without its newline. Signed is the object without the signature, and a newline. */
export function formatOldCheckpoint(
  { file, size, head, time }: { file: string; size: number; head: string; time: string },
  key: KeyObject,
): string {
  const text = JSON.stringify({ file, size, head, time });
  const signature = sign(null, Buffer.from(`${text}\n`), key).toString('base64');
  return `${text.slice(0, -1)},"signature":"${signature}"}`;
}
