// The archives of a site: in `packed/` below BaseDirectory, each with a manifest, named after a
// day. An archive exists when its manifest does; the archive file is renamed first.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../cli/failure.ts';
import type { Unpacked } from './archive.ts';
import { type ManifestEnd, type PackedExtension, type PackedGroup, readManifest } from './manifest.ts';

/** The settings that determine the directory. */
export interface Base {
  baseDirectory: string;
}

export interface Pack {
  /** `2026-10-01`, or `2026-10-01.2` for uploads of that day that were archived later. */
  name: string;
  day: string;
  archive: string;
  manifest: string;
}

const MANIFEST = /^((\d{4}-\d\d-\d\d)(?:\.[1-9]\d{0,5})?)\.jsonl$/;

export function packsFolder(base: Base): string {
  return join(base.baseDirectory, 'packed');
}

export function packAt(base: Base, name: string): Pack {
  const path = join(packsFolder(base), name);
  return { name, day: name.slice(0, 10), archive: `${path}.tar.gz`, manifest: `${path}.jsonl` };
}

/** The archives of a site, oldest day first. */
export function listPacks(base: Base): Pack[] {
  return listFiles(base)
    .flatMap((file) => MANIFEST.exec(file)?.[1] ?? [])
    .map((name) => packAt(base, name))
    .sort((a, b) => (a.day < b.day ? -1 : Number(a.day > b.day)) || partOf(a) - partOf(b));
}

/** All files in the directory of archives; empty when it does not exist. */
export function listFiles(base: Base): string[] {
  try {
    return readdirSync(packsFolder(base));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new Failure('failed', `${packsFolder(base)}: ${code}`, undefined, { cause: error });
  }
}

function partOf({ name }: Pack): number {
  return Number(name.slice(11) || 1);
}

/** A new archive for a day, with a name that is not taken. */
export function nextPack(base: Base, day: string): Pack {
  for (let part = 1; ; part++) {
    const pack = packAt(base, part === 1 ? day : `${day}.${part}`);
    if (!existsSync(pack.archive) && !existsSync(pack.manifest)) return pack;
  }
}

/** Yields every upload of an archive. Throws Failure `failed` when the manifest is incomplete. */
export function readGroups(pack: Pack): Generator<PackedGroup, ManifestEnd> {
  return readManifest(pack.manifest);
}

/** The end of the manifest of an archive. */
export function readEnd(manifest: string): ManifestEnd {
  const groups = readManifest(manifest);
  for (;;) {
    const { done, value } = groups.next();
    if (done) return value;
  }
}

/** The bytes of one file of an archived upload. */
export async function* readPackedFile(
  pack: Pack,
  group: PackedGroup,
  extension: PackedExtension,
): AsyncGenerator<Buffer> {
  // Reading archives is expensive to load, and usually not needed, because most uploads are in the
  // locker.
  const { readGroup } = await import('./archive.ts');
  for await (const file of readGroup(pack.archive, group) as AsyncGenerator<Unpacked>) {
    if (file.extension !== extension) continue;
    yield* file.chunks;
    return;
  }
}
