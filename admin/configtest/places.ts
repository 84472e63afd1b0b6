// Reports settings that name a directory which does not exist, although a similar one does. The
// setting is then misspelt, and creating the directory would make a second, empty site.
import { readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import type { GivenControls } from '../../cgi/settings.ts';
import { error, type Finding } from './finding.ts';
import { setControl } from './mends.ts';
import { placeOf } from './settings.ts';
import { findNearest } from './spelling.ts';

/** Where init puts BaseDirectory: beside the directory of nph-webjob.cfg, or in one of these. */
const USUAL = ['/var/integrity', '/var/lib/webjob', '/var/webjob'];

const FOLDERS = ['IncomingDirectory', 'LogfilesDirectory', 'ProfilesDirectory'] as const;
type Setting = 'BaseDirectory' | (typeof FOLDERS)[number];

export interface Misplaced {
  /** Names of settings with a wrong path, which need no further checks. */
  folders: ReadonlySet<string>;
  findings: Finding[];
}

/**
 * One finding for each setting with a wrong path. A directory that simply does not exist yet is
 * reported by the check of the tree.
 */
export function checkPlaces(settings: ServerSettings, given: GivenControls, file: string): Misplaced {
  const pathOf = (setting: Setting): string =>
    settings[`${setting.charAt(0).toLowerCase()}${setting.slice(1)}` as Uncapitalize<Setting>];
  const isGiven = (setting: Setting): boolean => given.has(setting.toLowerCase());
  const below = FOLDERS.filter((setting) => !isGiven(setting));
  const base = pathOf('BaseDirectory');
  if (below.length > 0 && below.every((setting) => !isFolder(pathOf(setting)))) {
    const names = below.map((setting) => basename(pathOf(setting)));
    const meant = findMeant(base, (path) => names.every((name) => isFolder(join(path, name))), file);
    if (meant !== undefined || !isFolder(base) || below.length > 1)
      return {
        folders: new Set(below),
        findings: [describe('BaseDirectory', base, meant, `it has no ${names.join(', ')}`)],
      };
  }
  const findings: Finding[] = [];
  const folders = new Set<string>();
  for (const setting of FOLDERS.filter((one) => isGiven(one) && !isFolder(pathOf(one)))) {
    const meant = findMeant(pathOf(setting), isFolder);
    if (meant === undefined) continue;
    folders.add(setting);
    findings.push(describe(setting, pathOf(setting), meant, 'there is no such directory'));
  }
  return { folders, findings };

  function describe(setting: Setting, path: string, meant: string | undefined, why: string): Finding {
    const place = placeOf(given, setting, file);
    const what = `${setting} names the wrong directory, ${path}: ${why}`;
    if (meant !== undefined) return error(what, place, setControl(place, setting, meant));
    return error(what, place, `find / -xdev -type d -name incoming  # and name the directory that has it: ${setting}=`);
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/**
 * The directory that was probably meant, whose path is closest to the given one: with another name,
 * or in one of the usual places; undefined for none.
 */
export function findMeant(path: string, isRight: (path: string) => boolean, file?: string): string | undefined {
  const parts = path.split('/').filter(Boolean);
  for (let at = parts.length; at >= 0; at--) {
    const parent = `/${parts.slice(0, at).join('/')}`;
    if (!isFolder(parent)) continue;
    const right = listFolders(parent).filter((name) => isRight(join(parent, name, ...parts.slice(at + 1))));
    const name = findNearest(parts[at] ?? '', right) ?? (right.length === 1 && at > 0 ? right[0] : undefined);
    if (name !== undefined) return join(parent, name, ...parts.slice(at + 1));
  }
  if (file === undefined) return undefined;
  return [join(dirname(dirname(file)), 'integrity'), ...USUAL].find(isRight);
}

function listFolders(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
