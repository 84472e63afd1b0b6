// Decrypted copies of sealed streams, in packages that were made with an identity.
import type { FileFacts } from '../../evidence/reading.ts';
import { MAX_TEXT_BYTES } from '../../pages/stream.ts';
import { findRecipients, type Identities, openSealed, type SealedName } from '../jobs/sealed.ts';
import type { CopiedUpload } from './uploads.ts';
import { type BagWriter, UnreadableStream } from './writer.ts';

/** The path of the decrypted copy. */
export function plainPath(sealed: string): string {
  return `${sealed}.plain`;
}

/** Whether a decrypted copy has the size and digest in the fields of the run record. */
export function isPlain(extra: ReadonlyMap<string, string>, name: SealedName, { bytes, sha256 }: FileFacts): boolean {
  const start = name === 'out' ? 'PlainOut' : 'PlainErr';
  return extra.get(`${start}Bytes`) === String(bytes) && extra.get(`${start}Sha256`) === sha256;
}

/**
 * Adds a decrypted copy beside a sealed stream, if an identity opens it. Throws the error of a
 * system call.
 */
export async function addPlain(
  bag: BagWriter,
  {
    name,
    folder,
    pack,
    heads,
    verdict: { record, findings },
  }: Pick<CopiedUpload, 'name' | 'folder' | 'pack' | 'heads' | 'verdict'>,
  identities: Identities | undefined,
): Promise<Pick<CopiedUpload, 'opened' | 'unopened'>> {
  const opened: SealedName[] = [];
  const unopened: string[] = [];
  const extra = new Map(record?.extra);
  if (!identities || !findRecipients(extra)) return { opened, unopened };
  for (const stream of ['out', 'err'] as const) {
    const path = `${folder}/${stream}`;
    if (!bag.has(path)) continue;
    const plain = plainPath(path);
    try {
      const chunks = openSealed(stream, { read: () => bag.read(path) }, identities);
      const { head, size, digests } = await bag.addStream(plain, chunks, { headBytes: MAX_TEXT_BYTES });
      opened.push(stream);
      heads[stream] = { head, size };
      if (isPlain(extra, stream, { bytes: size, sha256: digests.get('sha256') ?? '' })) continue;
      const place = `${pack === undefined ? '' : `packed/${pack}: `}${name}.${stream}`;
      findings.push({ kind: 'hash-wrong', place, detail: 'its plain text does not match the run record' });
    } catch (error) {
      if (!(error instanceof UnreadableStream)) throw error;
      unopened.push(error.message);
    }
  }
  return { opened, unopened };
}
