// webjobctl unpack: restores the uploads of an archive to the locker with their original times.
// Each is announced by its `.rdy` when its streams are on disk. The archive is removed when all
// uploads are back.
import { createHash } from 'node:crypto';
import { closeSync, futimesSync, linkSync, lstatSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Command } from 'commander';
import { makeFolders, reach, reachFolder } from 'webjob-locker';
import { openNew, syncFile, syncFolder, writeAll } from 'webjob-locker/durable';
import { readGroup, type Unpacked } from '../../archive/archive.ts';
import { PACKED_EXTENSIONS, type PackedExtension, type PackedGroup } from '../../archive/manifest.ts';
import { listPacks, type Pack, readEnd, readGroups } from '../../archive/packs.ts';
import { countOf } from '../../cli/counts.ts';
import { Failure } from '../../cli/failure.ts';
import { removeFile } from '../../cli/files.ts';
import { printJson, say, startProgress, warn } from '../../cli/output.ts';
import { recordEvent } from '../../evidence/events.ts';
import { describeFile } from '../../evidence/reading.ts';
import { describePack } from '../retention/pack-making.ts';
import { removePack } from '../retention/pack-removing.ts';
import { isInTheWay, openUploadLocks } from '../retention/upload-locks.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';

const MAX_NAME_LENGTH = 255;

const EXPLANATION = `
ARCHIVE is the day of an archive, as in 2026-10-01, or the day and a number, as in 2026-10-01.2. An upload whose name is
taken stays in the archive.

Example:
  webjobctl unpack 2026-10-01

Exit codes:
  0  done
  1  done, but some uploads stay in the archive
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the archive is missing or damaged, or a file cannot be written`;

export function unpackCommand(): Command {
  return new Command('unpack')
    .description('restore the uploads of an archive into the locker')
    .argument('<ARCHIVE>', 'the name of an archive, as in 2026-10-01')
    .addHelpText('after', EXPLANATION)
    .action(async (name: string, _: unknown, command: Command) =>
      unpack(openSite(command), name, globalOptions(command).json),
    );
}

async function unpack({ settings }: Site, name: string, json: true | undefined): Promise<void> {
  await withSiteLock(settings, 'keep', async () => {
    const pack = listPacks(settings).find((found) => found.name === name);
    if (!pack)
      throw new Failure(
        'failed',
        'there is no archive of that name',
        'an archive is named after its day, as in 2026-10-01',
      );
    const end = readEnd(pack.manifest);
    const progress = startProgress(name, end.groups);
    const taken: string[] = [];
    let done = 0;
    try {
      for (const group of readGroups(pack)) {
        if (!(await restoreGroup(settings.incomingDirectory, pack, group))) taken.push(group.name);
        done++;
        progress.advance();
      }
    } catch (error) {
      progress.end();
      if (done > taken.length)
        warn(
          `${done - taken.length} of ${countOf(end.groups, 'upload')} are back in the locker, and the archive stays`,
        );
      throw error;
    }
    progress.end();
    if (taken.length === 0) {
      recordEvent(settings, { event: 'unpack', ...describePack(pack, end) });
      removePack(settings, pack);
    } else {
      warn(`their names are taken, and the archive stays: ${countOf(taken.length, 'upload')}, first ${taken[0]}`);
      process.exitCode = 1;
    }
    const groups = end.groups - taken.length;
    if (json) printJson({ pack: name, groups, taken: taken.length });
    else say(`${name}: restored ${countOf(groups, 'upload')}`);
  });
}

/**
 * Restores one upload; false when another one has the name. A kill leaves the upload in the
 * archive, and at most streams without `.rdy`, which the next run replaces.
 */
async function restoreGroup(locker: string, pack: Pack, group: PackedGroup): Promise<boolean> {
  makeFolders(locker, group.name);
  if (lstatSync(reachFolder(locker, dirname(group.name)), { throwIfNoEntry: false }) === undefined)
    throw new Failure(
      'failed',
      `${locker}/${dirname(group.name)} is not a directory`,
      'nothing is unpacked through a link',
    );
  const locks = openUploadLocks(locker);
  try {
    const isTaken = locks.take(group.name);
    if (isTaken === 'full') throw new Failure('failed', `${locker}: no space for the lock of an upload`);
    if (!isTaken) return false;
    try {
      return await putBack(locker, pack, group);
    } catch (error) {
      if (isInTheWay(error)) return false;
      throw error;
    } finally {
      // The locker must not keep a partial stream, or one whose name another upload has.
      for (const extension of PACKED_EXTENSIONS) removeAside(locker, `${group.name}.${extension}`);
    }
  } finally {
    locks.release();
  }
}

async function putBack(locker: string, pack: Pack, group: PackedGroup): Promise<boolean> {
  const folder = dirname(group.name);
  const fileOf = (extension: PackedExtension): string => `${group.name}.${extension}`;
  const written: PackedExtension[] = [];
  for await (const unpacked of readGroup(pack.archive, group)) {
    const file = fileOf(unpacked.extension);
    const found = describeFile(reach(locker, file));
    if (found) {
      if (found.sha256 !== unpacked.file.sha256) return false;
      continue;
    }
    await writeAside(locker, file, unpacked);
    written.push(unpacked.extension);
  }
  // `.rdy` is the last file of an upload.
  const isAnnouncing = written.includes('rdy');
  for (const extension of written.filter((name) => name !== 'rdy')) putInPlace(locker, fileOf(extension));
  syncFolder(reachFolder(locker, folder));
  if (isAnnouncing) putInPlace(locker, fileOf('rdy'));
  syncFolder(reachFolder(locker, folder));
  return true;
}

/** A directory of that name was not made by this program. */
function removeAside(locker: string, name: string): void {
  try {
    removeFile(asideOf(locker, name));
  } catch (error) {
    if (!isInTheWay(error)) throw error;
  }
}

/** The path of the temporary file; a name of maximum length leaves no room for a suffix. */
function asideOf(locker: string, name: string): string {
  const aside = `${basename(name)}.unpack`;
  const short = `.${createHash('sha256').update(aside).digest('hex')}.unpack`;
  return reach(locker, join(dirname(name), aside.length > MAX_NAME_LENGTH ? short : aside));
}

async function writeAside(locker: string, name: string, { file, chunks }: Unpacked): Promise<void> {
  removeFile(asideOf(locker, name));
  const hash = createHash('sha256');
  const fd = openNew(asideOf(locker, name));
  try {
    for await (const chunk of chunks) {
      hash.update(chunk);
      writeAll(fd, chunk);
    }
    if (hash.digest('hex') !== file.sha256)
      throw new Failure('failed', `${locker}/${name}: the archive does not match its manifest`);
    futimesSync(fd, file.mtime / 1000, file.mtime / 1000);
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
}

/** A link, unlike a rename, fails when the name is taken. */
function putInPlace(locker: string, name: string): void {
  const aside = asideOf(locker, name);
  linkSync(aside, join(dirname(aside), basename(name)));
  unlinkSync(aside);
}
