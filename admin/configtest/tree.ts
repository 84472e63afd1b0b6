// The folders and logs of a site: there, with owners and modes under which the web user can do its work and no more, and room left.
import { lstatSync, type StatsFs, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { custodyPath, segmentFolder } from 'webjob-locker';
import type { ServerSettings } from '../../cgi/controls.ts';
import { formatBytes } from '../../cli/output.ts';
import { findUserName, mayAccess, type User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';

/** Less than this part of a file system, or these bytes, is soon none. */
const LITTLE_PART = 0.05;
const LITTLE_BYTES = 1_000_000_000;

export function checkTree(settings: ServerSettings, propertiesFile: string, webUser: User): Finding[] {
  const { incomingDirectory, logfilesDirectory, profilesDirectory, spoolDirectory } = settings;
  return [
    ...checkFolder('IncomingDirectory', incomingDirectory, webUser, 'writes'),
    ...checkFolder('LogfilesDirectory', logfilesDirectory, webUser, 'enters'),
    ...checkFolder('ProfilesDirectory', profilesDirectory, webUser, 'reads'),
    ...(settings.getHookEnable ? checkFolder('SpoolDirectory', spoolDirectory, webUser, 'writes') : []),
    ...logsOf(settings).flatMap((name) => checkLog(join(logfilesDirectory, name), webUser)),
    ...checkSegments(settings, webUser),
    ...checkSettingsFile(propertiesFile, webUser),
    ...checkRoom(incomingDirectory),
    ...checkRoom(logfilesDirectory).filter(({ severity }) => severity !== 'note'),
    ...checkFileSystem('IncomingDirectory', incomingDirectory),
    ...checkFileSystem('LogfilesDirectory', logfilesDirectory),
  ];
}

/** The type of every FUSE file system (statfs(2)). */
const FUSE_SUPER_MAGIC = 0x65735546;

/** Some FUSE file systems answer the fsync of a folder with success and do nothing (docs/scale.md). */
function checkFileSystem(control: string, path: string): Finding[] {
  if (findProblem(path, 'folder') || statfsSync(path).type !== FUSE_SUPER_MAGIC) return [];
  const risk =
    'some confirm the fsync of a folder without doing it, and a power failure can then lose acknowledged files';
  return [note(`${control} is on a FUSE file system: ${risk}`, path)];
}

/** Those that something is to be written to. */
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

function checkFolder(control: string, path: string, user: User, use: 'writes' | 'enters' | 'reads'): Finding[] {
  const mend = `mkdir -p ${path}${use === 'writes' ? ` && chown ${user.name}:0 ${path}` : ''}`;
  const problem = findProblem(path, 'folder');
  if (problem) return [error(`${control} ${problem}`, path, mend)];
  const may = (wanted: 'read' | 'write' | 'enter'): boolean => mayAccess(user, path, wanted);
  if (!may('enter'))
    return [error(`${user.name} cannot enter ${control}`, path, `chmod 755 it and the folders above it`)];
  if (use === 'writes' && !may('write'))
    return [
      error(`${user.name} cannot write in ${control}`, path, `chown ${user.name}:0 ${path} && chmod 755 ${path}`),
    ];
  if ((lstatSync(path).mode & 0o002) !== 0)
    return [error(`everybody may write in ${control}`, path, `chmod 755 ${path}`)];
  if (use === 'writes' || user.uid === process.getuid?.() || !may('write')) return [];
  const risk =
    use === 'reads' ? 'a script that is taken over could change what clients run' : 'a log could be replaced';
  return [warning(`${user.name} may write in ${control}: ${risk}`, path, `chown 0:0 ${path} && chmod 755 ${path}`)];
}

function checkLog(path: string, user: User): Finding[] {
  const problem = findProblem(path, 'file');
  if (problem) return [error(`the log ${problem}`, path, `touch ${path} && chown ${user.name}:0 ${path}`)];
  const owner = findUserName(lstatSync(path).uid);
  if (mayAccess(user, path, 'write')) return [];
  return [error(`${user.name} cannot write the log, which is ${owner}'s`, path, `chown ${user.name}:0 ${path}`)];
}

/** The folder in which the custody record goes on when its first file is full. */
function checkSegments({ enableCustody, logfilesDirectory, serverId }: ServerSettings, user: User): Finding[] {
  const path = segmentFolder(custodyPath(logfilesDirectory, serverId));
  if (!enableCustody || findProblem(logfilesDirectory, 'folder')) return [];
  if (mayAccess(user, findProblem(path, 'folder') ? logfilesDirectory : path, 'write')) return [];
  const remedy = `install -d -m 755 -o ${user.name} -g 0 ${path}`;
  return [
    warning(`${user.name} cannot begin another file of the custody record, and the first one grows on`, path, remedy),
  ];
}

function checkSettingsFile(path: string, user: User): Finding[] {
  if (findProblem(path, 'file')) return [];
  if (!mayAccess(user, path, 'read')) return [error(`${user.name} cannot read it`, path, `chmod 644 ${path}`)];
  if (user.uid === process.getuid?.() || !mayAccess(user, path, 'write')) return [];
  return [warning(`${user.name} may write it: a script that is taken over could change it`, path, `chown 0:0 ${path}`)];
}

/** `is not there`; undefined when it is what it must be. */
function findProblem(path: string, kind: 'folder' | 'file'): string | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return 'is not there';
  const isRight = kind === 'folder' ? stats.isDirectory() || stats.isSymbolicLink() : stats.isFile();
  return isRight ? undefined : `is no ${kind}`;
}

/** Bytes and inodes that are left where uploads or logs lie. */
function checkRoom(path: string): Finding[] {
  if (findProblem(path, 'folder')) return [];
  return describeRoom(path, statfsSync(path));
}

/** What a file system says of itself (statfs(2)), as far as it is about room. */
export type Room = Pick<StatsFs, 'bavail' | 'blocks' | 'bsize' | 'ffree' | 'files'>;

/** A warning for little room and one for few inodes, else a note. Some file systems have no number of blocks or inodes. */
export function describeRoom(path: string, { bavail, blocks, bsize, ffree, files }: Room): Finding[] {
  const [freeBytes, freePart] = [bavail * bsize, blocks === 0 ? 1 : bavail / blocks];
  const inodePart = files === 0 ? 1 : ffree / files;
  const percent = (part: number): string => `${Math.floor(part * 100)} %`;
  const remedy = 'make room: an upload that does not fit is answered 507';
  return [
    ...(freeBytes < LITTLE_BYTES || freePart < LITTLE_PART
      ? [warning(`little room is left: ${formatBytes(freeBytes)}, ${percent(freePart)}`, path, remedy)]
      : [note(`room for ${formatBytes(freeBytes)}, ${percent(freePart)}; ${percent(inodePart)} of the inodes`, path)]),
    ...(inodePart < LITTLE_PART ? [warning(`few inodes are left: ${percent(inodePart)}`, path, remedy)] : []),
  ];
}
