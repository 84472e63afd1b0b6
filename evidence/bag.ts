// BagIt bags (RFC 8493): a folder of files below data/, lists of their SHA-256, and files that tell of the bag. The lists
// are read strictly: one digest, two blanks and a name that leads nowhere else a line, as `sha256sum` writes them.
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describeFile, type FileFacts } from './reading.ts';

/** The declaration that makes a folder a bag. */
export const BAG_DECLARATION = 'BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n';
export const PAYLOAD_LIST = 'manifest-sha256.txt';
/** The list of all files outside of data/ but itself. */
export const TAG_LIST = 'tagmanifest-sha256.txt';

const LINE = /^([0-9a-f]{64}) {2}([A-Za-z0-9_][A-Za-z0-9_.~+-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.~+-]*)*)$/;

/** True for the path of a file in a bag that every system can have: no blank, no leading dot or hyphen. */
export function isBagPath(path: string): boolean {
  return LINE.test(`${'0'.repeat(64)}  ${path}`);
}

/** Throws TypeError for a path that isBagPath would not take. */
export function formatBagList(digests: ReadonlyMap<string, string>): string {
  return [...digests]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, sha256]) => {
      if (!isBagPath(path)) throw new TypeError(`${path} is not a path of a bag`);
      return `${sha256}  ${path}\n`;
    })
    .join('');
}

/** The digests of a list by path; undefined for a text that is not one. */
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

/** What a bag is found to hold. */
export interface FoundFiles {
  /** Paths of regular files, in order. */
  files: string[];
  /** Paths of links, and of whatever else is neither a file nor a folder. */
  strange: string[];
}

/** Lists a bag. Follows no link. Throws the error of a system call. */
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

/** One thing that was looked at in a package. */
export interface BagCheck {
  /** `note`: nothing is wrong, and nothing is proven. */
  verdict: 'ok' | 'failed' | 'note';
  place: string;
  detail: string;
}

/**
 * Checks that the lists of a bag name every file, and that every file is what they say. What was read is left in `digests`.
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
  for (const place of strange)
    yield { verdict: 'failed', place, detail: 'a link, or another thing that is not a file' };
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
