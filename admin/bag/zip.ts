// A folder as one ZIP file: its files in order of names, with one time, and ZIP64 where that is needed.
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ZipFile } from 'yazl';
import { listBag } from '../../evidence/bag.ts';

/** Writes the files of a folder, which stand below `name` in it, and puts it on disk. Throws the error of a system call. */
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
