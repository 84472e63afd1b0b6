// Checks the directories and logs of a site: they must exist, the web user must be able to do its
// work in them and nothing else, and there must be space left.
import { lstatSync, type StatsFs, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { custodyPath, segmentFolder } from 'webjob-locker';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { formatBytes } from '../../cli/output.ts';
import { quote } from '../../cli/shell.ts';
import { findUserName, mayAccess, type User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { setsLimit } from './settings.ts';
import { attempt, describeCode, findMend, formatOpening } from './trial.ts';

/** Less free space than this fraction, or these bytes, is reported as low. */
const LITTLE_PART = 0.05;
const LITTLE_BYTES = 1_000_000_000;

/** `misplaced` are settings that are known to name the wrong directory. */
export function checkTree(
  settings: ServerSettings,
  propertiesFile: string,
  webUser: User,
  misplaced: ReadonlySet<string> = new Set(),
): Finding[] {
  const { incomingDirectory, limitsDirectory, logfilesDirectory, profilesDirectory, spoolDirectory, dynamicDirectory } =
    settings;
  const check = (...[control, ...more]: Parameters<typeof checkFolder>): Finding[] =>
    misplaced.has(control) ? [] : checkFolder(control, ...more);
  const hasLogs = !misplaced.has('LogfilesDirectory');
  return [
    ...check('IncomingDirectory', incomingDirectory, webUser, 'writes'),
    ...check('LogfilesDirectory', logfilesDirectory, webUser, 'enters'),
    ...check('ProfilesDirectory', profilesDirectory, webUser, 'reads'),
    ...(settings.getHookEnable ? checkFolder('SpoolDirectory', spoolDirectory, webUser, 'writes') : []),
    // LimitsDirectory is in the same tree as IncomingDirectory, so it is misplaced too.
    ...(setsLimit(settings) && !misplaced.has('IncomingDirectory')
      ? checkFolder('LimitsDirectory', limitsDirectory, webUser, 'writes')
      : []),
    ...(settings.batchCommand !== '' && !misplaced.has('IncomingDirectory')
      ? checkFolder('DynamicDirectory', dynamicDirectory, webUser, 'writes')
      : []),
    ...(hasLogs ? logsOf(settings).flatMap((name) => checkLog(join(logfilesDirectory, name), webUser)) : []),
    ...(hasLogs ? checkSegments(settings, webUser) : []),
    ...checkSettingsFile(propertiesFile, webUser),
    ...checkRoom(incomingDirectory),
    ...(isOneFileSystem(incomingDirectory, logfilesDirectory)
      ? []
      : checkRoom(logfilesDirectory).filter(({ severity }) => severity !== 'note')),
    ...checkFileSystem('IncomingDirectory', incomingDirectory),
    ...checkFileSystem('LogfilesDirectory', logfilesDirectory),
  ];
}

/** The type of every FUSE file system (statfs(2)). */
const FUSE_SUPER_MAGIC = 0x65735546;

/**
 * Some FUSE file systems report success for the fsync of a directory without doing it
 * (docs/scale.md).
 */
function checkFileSystem(control: string, path: string): Finding[] {
  if (findProblem(path, 'folder') || statfsSync(path).type !== FUSE_SUPER_MAGIC) return [];
  const risk =
    'some confirm the fsync of a directory without doing it, and a power failure can then lose acknowledged files';
  return [note(`${control} is on a FUSE file system: ${risk}`, path)];
}

/** The logs that the site writes. */
function logsOf(settings: ServerSettings): string[] {
  const { enableLogging, enableRequestTracking, getHookEnable, putHookEnable } = settings;
  const controls: Partial<Record<string, unknown>> = settings;
  return [
    ...(enableLogging ? ['nph-webjob.log'] : []),
    ...(enableRequestTracking ? ['nph-webjob.json.log'] : []),
    ...(getHookEnable || putHookEnable ? ['nph-webjob-hook.log'] : []),
    ...(settings.getTriggerEnable || settings.putTriggerEnable ? ['nph-webjob-trigger.log'] : []),
    ...(controls.enableCustody === true ? [custodyPath('', settings.serverId)] : []),
  ];
}

const DEEDS = { writes: 'fill', enters: 'enter', reads: 'list' } as const;
const MODES = { writes: '755', enters: '755', reads: 'a+rx' } as const;

function checkFolder(control: string, path: string, user: User, use: keyof typeof DEEDS): Finding[] {
  const place = quote(path);
  const mend = `mkdir -p -m 755 ${place}${use === 'writes' ? ` && chown ${user.name}:0 ${place}` : ''}`;
  const problem = findProblem(path, 'folder');
  if (problem) return [error(`${control} ${problem}`, path, mend)];
  const entering = attempt(user, path, 'enter');
  if (entering !== undefined) {
    const opening = formatOpening(user, path, `chmod ${MODES[use]} ${place}`);
    return [error(`${user.name} cannot enter ${control}${describeCode(entering)}`, path, opening)];
  }
  const code = attempt(user, path, DEEDS[use]);
  // checkRoom() reports a full file system.
  if (code !== undefined && !(code === 'ENOSPC' && hasNoRoom(path))) {
    const change =
      use === 'writes' ? `chown ${user.name}:0 ${place} && chmod 755 ${place}` : `chmod ${MODES[use]} ${place}`;
    const what = use === 'writes' ? 'write in' : 'list';
    return [error(`${user.name} cannot ${what} ${control}${describeCode(code)}`, path, findMend(code, path) ?? change)];
  }
  const may = (wanted: 'read' | 'write' | 'enter'): boolean => mayAccess(user, path, wanted);
  if ((lstatSync(path).mode & 0o002) !== 0)
    return [error(`everyone can write to ${control}`, path, `chmod 755 ${place}`)];
  if (use === 'writes' || user.uid === process.getuid?.() || !may('write')) return [];
  const risk = use === 'reads' ? 'a compromised script could change what clients run' : 'a log could be replaced';
  return [warning(`${user.name} can write to ${control}: ${risk}`, path, `chown 0:0 ${place} && chmod 755 ${place}`)];
}

function checkLog(path: string, user: User): Finding[] {
  const problem = findProblem(path, 'file');
  const own = `chown ${user.name}:0 ${quote(path)}`;
  if (problem) return [error(`the log ${problem}`, path, `touch ${quote(path)} && ${own}`)];
  const code = attempt(user, path, 'append');
  if (code === undefined) return [];
  const owner = findUserName(lstatSync(path).uid);
  const what = code === 'EACCES' ? `, which belongs to ${owner}` : describeCode(code);
  const change = owner === user.name ? `chmod u+w ${quote(path)}` : own;
  return [
    error(`${user.name} cannot write the log${what}`, path, findMend(code, path) ?? formatOpening(user, path, change)),
  ];
}

/** The directory in which the custody record continues when its first file is full. */
function checkSegments({ enableCustody, logfilesDirectory, serverId }: ServerSettings, user: User): Finding[] {
  const path = segmentFolder(custodyPath(logfilesDirectory, serverId));
  if (!enableCustody || findProblem(logfilesDirectory, 'folder')) return [];
  const place = findProblem(path, 'folder') ? logfilesDirectory : path;
  const code = attempt(user, place, 'fill');
  if (code === undefined || (code === 'ENOSPC' && hasNoRoom(place))) return [];
  const remedy = findMend(code, place) ?? `install -d -m 755 -o ${user.name} -g 0 ${quote(path)}`;
  return [
    warning(
      `${user.name} cannot begin another file of the custody record, so the first one keeps growing`,
      path,
      remedy,
    ),
  ];
}

function checkSettingsFile(path: string, user: User): Finding[] {
  if (findProblem(path, 'file')) return [];
  const file = quote(path);
  if (attempt(user, path, 'read') !== undefined)
    return [error(`${user.name} cannot read the settings`, path, formatOpening(user, path, `chmod 644 ${file}`))];
  if (user.uid === process.getuid?.() || !mayAccess(user, path, 'write')) return [];
  const risk = 'a compromised script could change them';
  return [warning(`${user.name} can write to the settings: ${risk}`, path, `chown 0:0 ${file} && chmod 644 ${file}`)];
}

/**
 * `does not exist`, or a similar problem of a path; undefined when the path is of the required
 * kind.
 */
function findProblem(path: string, kind: 'folder' | 'file'): string | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return 'does not exist';
  const isRight = kind === 'folder' ? stats.isDirectory() || stats.isSymbolicLink() : stats.isFile();
  return isRight ? undefined : `is not a ${kind === 'folder' ? 'directory' : kind}`;
}

/** Whether existing paths are on one file system, for which one finding is enough. */
function isOneFileSystem(...paths: string[]): boolean {
  return new Set(paths.map((path) => statSync(path, { throwIfNoEntry: false })?.dev)).size === 1;
}

function hasNoRoom(path: string): boolean {
  const { bavail, ffree, files } = statfsSync(path);
  return bavail === 0 || (files > 0 && ffree === 0);
}

/** Checks the free space and inodes where uploads or logs are. */
function checkRoom(path: string): Finding[] {
  if (findProblem(path, 'folder')) return [];
  return describeRoom(path, statfsSync(path));
}

const ROOM = 'make room: an upload that does not fit is answered 507. webjobctl pack and webjobctl prune help';

/** The fields of statfs(2) about space. */
export type Room = Pick<StatsFs, 'bavail' | 'blocks' | 'bsize' | 'ffree' | 'files'>;

/**
 * A warning for little space and one for few inodes, otherwise a note. Some file systems report no
 * number of blocks or inodes.
 */
export function describeRoom(path: string, { bavail, blocks, bsize, ffree, files }: Room): Finding[] {
  const [freeBytes, freePart] = [bavail * bsize, blocks === 0 ? 1 : bavail / blocks];
  const inodePart = files === 0 ? 1 : ffree / files;
  const percent = (part: number): string => `${Math.floor(part * 100)}%`;
  const [hasNoBytes, hasNoInodes] = [bavail === 0 && blocks > 0, ffree === 0 && files > 0];
  const remedy = `df ${hasNoInodes || inodePart < LITTLE_PART ? '-i' : '-h'} ${quote(path)}  # ${ROOM}`;
  if (hasNoBytes || hasNoInodes)
    return [error(`no ${hasNoBytes ? 'space' : 'inode'} is left, and uploads are answered 507`, path, remedy)];
  return [
    ...(freeBytes < LITTLE_BYTES || freePart < LITTLE_PART
      ? [warning(`little space is left: ${formatBytes(freeBytes)}, ${percent(freePart)}`, path, remedy)]
      : [note(`free: ${formatBytes(freeBytes)}, ${percent(freePart)}; ${percent(inodePart)} of the inodes`, path)]),
    ...(inodePart < LITTLE_PART ? [warning(`few inodes are left: ${percent(inodePart)}`, path, remedy)] : []),
  ];
}
