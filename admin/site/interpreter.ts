// The Node that runs the script: which one the web user can start, and whether it is new enough.
import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { askProgram } from './programs.ts';
import { mayAccess, type User } from './users.ts';

/** The oldest version for the built script (package.json, engines). */
const OLDEST = [20, 19] as const;

/** The strictest kernels cut a `#!` line here, and at a space. */
const MAX_LINE = 127;

/**
 * The absolute path of a Node for the first line of nph-webjob.cgi: the given one, the one that
 * runs this process, or one in the usual places. A Node of a checkout is used only when there is no
 * other. Throws Failure `failed`.
 */
export function findNode(given: string | undefined, webUser: User | undefined): string {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/bin', '/usr/bin'];
  const places = given !== undefined ? [given] : [process.execPath, ...folders.map((folder) => join(folder, 'node'))];
  // A stable sort: Nodes outside of a checkout come first.
  const ordered = [...places].sort((one, other) => Number(isInCheckout(one)) - Number(isInCheckout(other)));
  let problem = '';
  for (const place of ordered) {
    const found = findProblem(place, webUser);
    if (found === undefined) return place;
    problem ||= found;
  }
  throw new Failure('failed', `no Node for the script: ${problem}`, 'name a Node that httpd can start: --node FILE');
}

/**
 * Whether a Node belongs to a working copy: npm's package of Node, or anything below a directory
 * with a `.git`.
 */
export function isInCheckout(node: string): boolean {
  const places = [node, existsSync(node) ? realpathSync(node) : node];
  return places.some((place) => /\/node_modules\//.test(place) || hasAbove(place, '.git'));
}

function hasAbove(path: string, name: string): boolean {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    if (existsSync(join(folder, name))) return true;
    if (folder === dirname(folder)) return false;
  }
}

function findProblem(place: string, webUser: User | undefined): string | undefined {
  if (!/^\/\S+$/.test(place) || place.length > MAX_LINE - 2) return `${place} cannot be used in a #! line`;
  if (!existsSync(place)) return `there is no ${place}`;
  if (webUser && !mayAccess(webUser, realpathSync(place), 'run')) return `${webUser.name} may not execute ${place}`;
  const version = askVersion(place);
  if (version === undefined) return `${place} is not Node`;
  return isNewEnough(version) ? undefined : `${place} is ${version}, and the script needs v${OLDEST.join('.')}`;
}

/** `v24.1.0`; undefined for a program that is not Node. */
export function askVersion(node: string): string | undefined {
  const { status, stdout } = askProgram(node, ['--version']);
  return status === 0 ? /^v\d+\.\d+\.\d+/.exec(stdout)?.[0] : undefined;
}

export function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.slice(1).split('.').map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}
