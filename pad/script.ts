// The PaD file itself: pad.sh with the facts of the payload, followed by the payload in base64 as
// uudecode reads it.
import { createHash } from 'node:crypto';
import { changed } from './files.ts';
import unpacker from './pad.sh';
import type { Payload } from './payload.ts';

const LINE_BYTES = 57;

interface Digest {
  bytes: number;
  sha256: string;
}

/** Reads the payload twice, because its digest comes first. */
export function* scriptPieces(payload: Payload, madeBy: string): Generator<Buffer | string> {
  const announced = digestOf(payload.pieces());
  yield head(payload, announced, madeBy);
  yield `begin-base64 ${payload.mode} payload\n`;
  const hash = createHash('sha256');
  yield* encode(payload.pieces(), (piece) => hash.update(piece));
  if (hash.digest('hex') !== announced.sha256) throw changed('the payload');
  yield '====\n';
}

function digestOf(pieces: Iterable<Buffer>): Digest {
  const hash = createHash('sha256');
  let bytes = 0;
  for (const piece of pieces) {
    hash.update(piece);
    bytes += piece.length;
  }
  return { bytes, sha256: hash.digest('hex') };
}

function head({ kind, name, mode }: Payload, { bytes, sha256 }: Digest, madeBy: string): string {
  const values = { made_by: madeBy, stored_name: name, kind, mode, bytes: String(bytes), sha256 };
  const lines = Object.entries(values).map(([key, value]) => `pad_${key}=${quote(value)}`);
  return unpacker.replace('#@values@', () => lines.join('\n'));
}

/** Quotes any text as one word for sh. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Base64 in lines of 76 characters, 57 bytes each, whatever the sizes of the pieces. */
function* encode(pieces: Iterable<Buffer>, see: (piece: Buffer) => void): Generator<string> {
  let rest = Buffer.alloc(0);
  for (const piece of pieces) {
    see(piece);
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    const whole = bytes.length - (bytes.length % LINE_BYTES);
    yield lines(bytes.subarray(0, whole));
    rest = Buffer.from(bytes.subarray(whole));
  }
  yield lines(rest);
}

function lines(bytes: Buffer): string {
  return bytes.toString('base64').replace(/.{1,76}/g, '$&\n');
}
