// Compares a list of wishes with the existing files, and returns the state of each wish. Changes
// nothing.
import { lstatSync, readFileSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { isRoot, type User } from '../site/users.ts';
import type { Wish } from './plan.ts';

export type State = 'make' | 'keep' | 'differs';

export interface Step extends Wish {
  /** The path on this machine: below --root, if that is given. */
  place: string;
  state: State;
  /** The properties that differ. */
  why: ('content' | 'mode' | 'owner' | 'kind')[];
  /** The owner and group; undefined for those of this process. */
  ownership: { uid: number; gid: number } | undefined;
}

export interface Ground {
  /** The directory that stands for `/`. */
  root: string;
  webUser: User | undefined;
  /** The user of the view's process. */
  viewUser?: User | undefined;
  /** The group of --private. */
  analystsGid?: number | undefined;
}

/** Compares wishes with the disk. Throws Failure `failed` for a path that cannot be read. */
export function compareWishes(wishes: readonly Wish[], { root, webUser, viewUser, analystsGid = 0 }: Ground): Step[] {
  return wishes.map((wish) => {
    const place = join(root, wish.path);
    const gids = { root: 0, web: webUser?.gid ?? 0, view: viewUser?.gid ?? 0, analysts: analystsGid };
    const uids = { root: 0, web: webUser?.uid ?? 0, view: viewUser?.uid ?? 0 };
    const ownership = isRoot() && webUser ? { uid: uids[wish.owner], gid: gids[wish.group] } : undefined;
    const stats = findStats(place);
    if (stats === undefined) return { ...wish, place, ownership, state: 'make', why: [] };
    if (isAsPackaged(wish, place, stats)) return { ...wish, place, ownership, state: 'make', why: [] };
    const why = findDifferences(wish, place, stats, ownership);
    return { ...wish, place, ownership, state: why.length === 0 ? 'keep' : 'differs', why };
  });
}

function isAsPackaged({ packaged, content }: Wish, place: string, stats: Stats): boolean {
  return packaged !== undefined && packaged !== content && stats.isFile() && readFileSync(place, 'utf8') === packaged;
}

function findDifferences(wish: Wish, place: string, stats: Stats, ownership: Step['ownership']): Step['why'] {
  if (wish.isSystems && statSync(place, { throwIfNoEntry: false })?.isDirectory()) return [];
  if (wish.kind === 'link' && stats.isSymbolicLink()) return readlinkSync(place) === wish.target ? [] : ['content'];
  // A link in place of a file was set up on purpose, and is never followed.
  if (wish.kind === 'folder' ? !stats.isDirectory() : !stats.isFile()) return ['kind'];
  const isSame = wish.content === undefined || readFileSync(place, 'utf8') === wish.content;
  const isOwners = ownership === undefined || (stats.uid === ownership.uid && stats.gid === ownership.gid);
  return [
    ...(isSame ? [] : (['content'] as const)),
    ...((stats.mode & 0o7777) === wish.mode ? [] : (['mode'] as const)),
    ...(isOwners ? [] : (['owner'] as const)),
  ];
}

function findStats(place: string): Stats | undefined {
  try {
    return lstatSync(place);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${place} cannot be read: ${code}`);
  }
}
