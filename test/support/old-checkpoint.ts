// A checkpoint as earlier versions of webjobctl made it: a line of JSON. Existing ones can still be
// checked.
import { type KeyObject, sign } from 'node:crypto';

/**
 * The line without its newline. The signed text is the object without the signature, and a newline.
 */
export function formatOldCheckpoint(
  { file, size, head, time }: { file: string; size: number; head: string; time: string },
  key: KeyObject,
): string {
  const text = JSON.stringify({ file, size, head, time });
  const signature = sign(null, Buffer.from(`${text}\n`), key).toString('base64');
  return `${text.slice(0, -1)},"signature":"${signature}"}`;
}
