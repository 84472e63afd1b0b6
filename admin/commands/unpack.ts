// webjobctl unpack: puts the groups of a pack back into the locker, each announced by its `.rdy` when its streams are on disk, with the
// times it had. The pack goes when all of them are back.
import { createHash } from 'node:crypto';
import { closeSync, linkSync, lstatSync, openSync, rmSync, utimesSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Command } from 'commander';
import { groupPaths } from 'webjob-locker';
import { makeFolder, syncFile, syncFolder, writeAll } from 'webjob-locker/durable';
import { readGroup, type Unpacked } from '../../archive/archive.ts';
import { PACKED_EXTENSIONS, type PackedExtension, type PackedGroup } from '../../archive/manifest.ts';
import { listPacks, type Pack, readEnd, readGroups } from '../../archive/packs.ts';
import { Failure } from '../../cli/failure.ts';
import { markOf } from '../../cli/files.ts';
import { openLocks } from '../../cli/lockfile.ts';
import { printJson, say, startProgress, warn } from '../../cli/output.ts';
import { recordEvent } from '../../evidence/events.ts';
import { digestFile } from '../../evidence/reading.ts';
import { describePack } from '../retention/pack-making.ts';
import { removePack } from '../retention/pack-removing.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { inTurn, lockSource } from '../site/turn.ts';

const MAX_NAME_LENGTH = 255;

const EXPLANATION = `
PACK is the name of a pack: its day, as in 2026-10-01, or that and a number. A group whose name is taken by another stays in the pack.

Example:
  webjobctl unpack 2026-10-01

Exit codes:
  0  done
  1  done, but some groups stay in the pack
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  there is no such pack, it is damaged, or a file cannot be written`;

export function unpackCommand(): Command {
  return new Command('unpack')
    .description('put the groups of a pack back into the locker')
    .argument('<pack>', 'the name of a pack, as in 2026-10-01')
    .addHelpText('after', EXPLANATION)
    .action(async (name: string, _: unknown, command: Command) =>
      unpack(openSite(command), name, globalOptions(command).json),
    );
}

async function unpack({ settings }: Site, name: string, json: true | undefined): Promise<void> {
  await inTurn(settings, 'keep', async () => {
    const pack = listPacks(settings).find((found) => found.name === name);
    if (!pack)
      throw new Failure('failed', 'there is no pack of that name', 'a pack is named for its day, as in 2026-10-01');
    const end = await readEnd(pack.manifest);
    const progress = startProgress(name, end.groups);
    const taken: string[] = [];
    let done = 0;
    try {
      for await (const group of readGroups(pack)) {
        if (!(await restoreGroup(settings.incomingDirectory, pack, group))) taken.push(group.name);
        done++;
        progress.advance();
      }
    } catch (error) {
      progress.end();
      if (done > taken.length)
        warn(`${done - taken.length} of ${end.groups} groups are back in the locker, and the pack stays`);
      throw error;
    }
    progress.end();
    if (taken.length === 0) {
      recordEvent(settings, { event: 'unpack', ...(await describePack(pack, end)) });
      removePack(settings, pack);
    } else {
      warn(`the name is taken, and so the pack stays: ${taken.length} groups, first ${taken[0]}`);
      process.exitCode = 1;
    }
    const groups = end.groups - taken.length;
    if (json) printJson({ pack: name, groups, taken: taken.length });
    else say(`${name}: ${groups} groups are back in the locker`);
  });
}

/** False when another group has the name. A kill leaves the group packed, and at most streams without `.rdy` that the next run takes. */
async function restoreGroup(locker: string, pack: Pack, group: PackedGroup): Promise<boolean> {
  const paths = groupPaths(join(locker, group.name));
  refuseLinks(locker, group.name);
  makeFolder(dirname(paths.rdy));
  const locks = openLocks(lockSource(locker));
  try {
    if (!locks.take(paths.lck)) return false;
    try {
      return await putBack(locker, pack, group, paths);
    } finally {
      // The beginning of a stream, or what another group keeps from its name, is nothing that a locker should hold.
      for (const extension of PACKED_EXTENSIONS) rmSync(asideOf(paths[extension]), { force: true });
    }
  } finally {
    locks.release();
  }
}

async function putBack(
  locker: string,
  pack: Pack,
  group: PackedGroup,
  paths: ReturnType<typeof groupPaths>,
): Promise<boolean> {
  const folder = dirname(paths.rdy);
  const written: PackedExtension[] = [];
  for await (const unpacked of readGroup(pack.archive, group)) {
    const path = paths[unpacked.extension];
    if (markOf(path) !== undefined) {
      if (digestFile(path).sha256 !== unpacked.file.sha256) return false;
      continue;
    }
    await writeAside(path, unpacked, () => refuseLinks(locker, group.name));
    written.push(unpacked.extension);
  }
  // `.rdy` is the last of them.
  const isAnnouncing = written.includes('rdy');
  for (const extension of written.filter((name) => name !== 'rdy')) putInPlace(paths[extension]);
  syncFolder(folder);
  if (isAnnouncing) putInPlace(paths.rdy);
  syncFolder(folder);
  return true;
}

/** A name that is as long as a file system takes has no room for more. */
function asideOf(path: string): string {
  const aside = `${basename(path)}.unpack`;
  const short = `.${createHash('sha256').update(aside).digest('hex')}.unpack`;
  return join(dirname(path), aside.length > MAX_NAME_LENGTH ? short : aside);
}

/** Whoever can write in the locker could put a link in the way of a folder, for us to write where only we may. Throws Failure `failed`. */
function refuseLinks(locker: string, name: string): void {
  const parts = name.split('/');
  for (let depth = 1; depth < parts.length; depth++) {
    const path = join(locker, ...parts.slice(0, depth));
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false)
      throw new Failure('failed', `${path} is no folder`, 'nothing is unpacked through a link');
  }
}

/** `check` is asked once the file is open, before anything is in it. */
async function writeAside(path: string, { file, chunks }: Unpacked, check: () => void): Promise<void> {
  const aside = asideOf(path);
  rmSync(aside, { force: true });
  const hash = createHash('sha256');
  const fd = openSync(aside, 'wx', 0o644);
  try {
    check();
    for await (const chunk of chunks) {
      hash.update(chunk);
      writeAll(fd, chunk);
    }
    if (hash.digest('hex') !== file.sha256)
      throw new Failure('failed', `${path}: the pack does not hold what its manifest says`);
    utimesSync(aside, file.mtime / 1000, file.mtime / 1000);
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
}

/** A link takes a name only when it is free. */
function putInPlace(path: string): void {
  linkSync(asideOf(path), path);
  rmSync(asideOf(path));
}
