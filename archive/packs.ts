// Where packs are: `packed/` below BaseDirectory, each an archive and its manifest, named for a day. A pack is there when its manifest is;
// the archive gets its name before it.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../cli/failure.ts';
import type { Unpacked } from './archive.ts';
import { type ManifestEnd, type PackedExtension, type PackedGroup, readManifest } from './manifest.ts';

/** Where a site keeps what is below it. */
export interface Base {
  baseDirectory: string;
}

export interface Pack {
  /** `2026-10-01`, or `2026-10-01.2` for what was packed of that day later. */
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

/** The packs of a site, the oldest day first. */
export function listPacks(base: Base): Pack[] {
  return listFiles(base)
    .flatMap((file) => MANIFEST.exec(file)?.[1] ?? [])
    .map((name) => packAt(base, name))
    .sort((a, b) => (a.day < b.day ? -1 : Number(a.day > b.day)) || partOf(a) - partOf(b));
}

/** Everything in the folder of packs; nothing when there is no such folder. */
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

/** A pack of a day whose name is not taken yet. */
export function nextPack(base: Base, day: string): Pack {
  for (let part = 1; ; part++) {
    const pack = packAt(base, part === 1 ? day : `${day}.${part}`);
    if (!existsSync(pack.archive) && !existsSync(pack.manifest)) return pack;
  }
}

/** Every group of a pack. Throws Failure `failed` when the manifest is not whole. */
export function readGroups(pack: Pack): AsyncGenerator<PackedGroup, ManifestEnd> {
  return readManifest(pack.manifest);
}

/** What ends the manifest of a pack. */
export async function readEnd(manifest: string): Promise<ManifestEnd> {
  const groups = readManifest(manifest);
  for (;;) {
    const { done, value } = await groups.next();
    if (done) return value;
  }
}

/** The bytes of one file of a packed group. */
export async function* readPackedFile(
  pack: Pack,
  group: PackedGroup,
  extension: PackedExtension,
): AsyncGenerator<Buffer> {
  // Dear to load, and most of what is looked for is in the locker.
  const { readGroup } = await import('./archive.ts');
  for await (const file of readGroup(pack.archive, group) as AsyncGenerator<Unpacked>) {
    if (file.extension !== extension) continue;
    yield* file.chunks;
    return;
  }
}
