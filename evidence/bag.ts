// BagIt bags (RFC 8493): files below data/, lists of their SHA-256 digests, and tag files that
// describe the bag. The lists are read strictly: each line is one digest, two spaces and a path
// inside the bag, as `sha256sum` writes it.
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describeFile, type FileFacts } from './reading.ts';

/** The declaration that makes a directory a bag (RFC 8493, section 2.1.1). */
export const BAG_DECLARATION = 'BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n';
export const PAYLOAD_LIST = 'manifest-sha256.txt';
/** The list of all tag files except itself (RFC 8493, section 2.2.1). */
export const TAG_LIST = 'tagmanifest-sha256.txt';

const LINE = /^([0-9a-f]{64}) {2}([A-Za-z0-9_][A-Za-z0-9_.~+-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.~+-]*)*)$/;

/** Whether a path is portable to every system: no space, no leading dot or hyphen. */
export function isBagPath(path: string): boolean {
  return LINE.test(`${'0'.repeat(64)}  ${path}`);
}

/** Formats a list of digests by path. Throws TypeError for a path that isBagPath() rejects. */
export function formatBagList(digests: ReadonlyMap<string, string>): string {
  return [...digests]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, sha256]) => {
      if (!isBagPath(path)) throw new TypeError(`${path} is not a path of a bag`);
      return `${sha256}  ${path}\n`;
    })
    .join('');
}

/** Parses a list into digests by path. Returns undefined for text that is not a list of digests. */
export function parseBagList(text: string): Map<string, string> | undefined {
  const lines = text.split('\n');
  if (lines.pop() !== '' || lines.length === 0) return undefined;
  const digests = new Map<string, string>();
  for (const line of lines) {
    const [, sha256, path] = LINE.exec(line) ?? [];
    if (sha256 === undefined || path === undefined || digests.has(path)) return undefined;
    digests.set(path, sha256);
  }
  return digests;
}

/** The contents of a bag. */
export interface FoundFiles {
  /** Paths of regular files, sorted. */
  files: string[];
  /** Paths of symbolic links and everything else that is neither a regular file nor a directory. */
  strange: string[];
}

/** Lists the files of a bag without following links. Throws the error of a system call. */
export function listBag(folder: string): FoundFiles {
  const found: FoundFiles = { files: [], strange: [] };
  const walk = (below: string): void => {
    for (const name of readdirSync(join(folder, below)).sort()) {
      const path = below === '' ? name : `${below}/${name}`;
      const stats = lstatSync(join(folder, path));
      if (stats.isDirectory()) walk(path);
      else found[stats.isFile() ? 'files' : 'strange'].push(path);
    }
  };
  walk('');
  return found;
}

/** The result of one check of a package. */
export interface BagCheck {
  /** `note` for a remark that neither proves nor refutes anything. */
  verdict: 'ok' | 'failed' | 'note';
  place: string;
  detail: string;
}

/**
 * Checks that the lists of a bag name every file, and that every file has the digest in its list.
 * Adds each digest that it reads to `digests`.
 *
 * @throws the error of a system call
 */
export function* checkBag(
  folder: string,
  readText: (path: string) => string | undefined,
  digests: Map<string, FileFacts>,
): Generator<BagCheck> {
  const isBag = readText('bagit.txt') === BAG_DECLARATION;
  yield isBag
    ? { verdict: 'ok', place: 'bagit.txt', detail: 'a BagIt bag, version 1.0' }
    : { verdict: 'failed', place: 'bagit.txt', detail: 'not that of a BagIt bag, version 1.0' };
  const { files, strange } = listBag(folder);
  for (const place of strange) yield { verdict: 'failed', place, detail: 'a link, or not a regular file' };
  const isData = (path: string): boolean => path.startsWith('data/');
  const parts = [
    [TAG_LIST, files.filter((path) => !isData(path) && path !== TAG_LIST)],
    [PAYLOAD_LIST, files.filter(isData)],
  ] as const;
  for (const [list, found] of parts) {
    const listed = parseBagList(readText(list) ?? '');
    if (!listed) {
      yield { verdict: 'failed', place: list, detail: 'not a list of SHA-256 and names' };
      continue;
    }
    const there = new Set(found);
    const unlisted = found.filter((path) => !listed.has(path));
    for (const place of unlisted) yield { verdict: 'failed', place, detail: `not in ${list}` };
    if (unlisted.length === 0) yield { verdict: 'ok', place: list, detail: 'no file is missing from it' };
    for (const [place, sha256] of listed) {
      const facts = there.has(place) ? describeFile(join(folder, place)) : undefined;
      if (facts) digests.set(place, facts);
      yield facts?.sha256 === sha256
        ? { verdict: 'ok', place, detail: 'SHA-256' }
        : { verdict: 'failed', place, detail: `missing, or not the SHA-256 of ${list}` };
    }
  }
}
