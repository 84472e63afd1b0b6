// Writes a directory as a ZIP file: files sorted by name, all with the same time, and ZIP64 where
// necessary.
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ZipFile } from 'yazl';
import { listBag } from '../../evidence/bag.ts';

/**
 * Writes the files of a directory, with paths below `name`, and puts the ZIP file on disk. Throws
 * the error of a system call.
 */
export async function zipFolder(folder: string, name: string, file: string, mtime: Date): Promise<void> {
  const zip = new ZipFile();
  for (const path of listBag(folder).files) {
    const mode = path === 'VERIFY.sh' ? 0o100755 : 0o100644;
    zip.addFile(join(folder, path), `${name}/${path}`, { mtime, mode });
  }
  zip.end();
  const failed = new Promise<never>((_, reject) => zip.on('error', reject));
  await Promise.race([
    pipeline(zip.outputStream, createWriteStream(file, { flags: 'wx', mode: 0o600, flush: true })),
    failed,
  ]);
}
