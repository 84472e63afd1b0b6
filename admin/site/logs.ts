// The custody records of a site as transparency logs: their trees, and their checkpoints, which are
// stored where only root writes.
import { appendFileSync, closeSync, constants, openSync, readFileSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type CustodyFile, listCustodyFiles } from 'webjob-locker';
import { makeFolder, syncFile, syncFolder } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { type Piece, parseCheckpoint, splitCheckpoints, type TreeHead } from '../../evidence/tlog.ts';
import { CustodyTree, type Segment, type TreeOptions } from '../../evidence/tree.ts';
import { Witness } from '../../evidence/witness.ts';
import { isKeyName } from '../../notes/note.ts';
import { keepFolder } from './site-lock.ts';

/** A stored checkpoint with its tree head. */
export interface KeptCheckpoint extends TreeHead {
  text: string;
}

/**
 * The default origin of a site's logs without the ServerId: that of existing logs, or HOST/webjob.
 */
export function defaultOrigin(settings: ServerSettings): string {
  for (const serverId of recordsOf(settings).keys()) {
    const tree = openTree(settings, serverId, { origin: '' });
    tree.close();
    if (!tree.isNew) return tree.origin.slice(0, tree.origin.lastIndexOf(`/${serverId}`));
  }
  return `${hostname()}/webjob`;
}

/** Checks an origin, and returns it. Throws Failure `usage` for a text that cannot be one. */
export function requireOrigin(origin: string): string {
  if (isKeyName(origin) && !origin.endsWith('/') && origin.length <= 200) return origin;
  throw new Failure(
    'usage',
    `--origin ${JSON.stringify(origin)} is not the name of a log`,
    '--origin example.org/webjob',
  );
}

/**
 * Opens the stored tree of a server's record; it is empty for a user who may not read it. Throws
 * Failure `failed`.
 */
export function openTree(
  settings: ServerSettings,
  serverId: string,
  options: Partial<Pick<TreeOptions, 'origin' | 'digest'>> = {},
): CustodyTree {
  const { logfilesDirectory: logs } = settings;
  const witness = new Witness(keepFolder(settings));
  const isKept = witness.state === 'asked' || witness.state === 'none';
  const folder = isKept ? witness.folder : undefined;
  const digest = (file: string, size: number): string => witness.digest(logs, file, size);
  return new CustodyTree({ origin: '', digest, ...options, logs, serverId, folder });
}

/** The custody records of a site by ServerId, each with its segments in order. */
export function recordsOf({ logfilesDirectory }: ServerSettings): Map<string, CustodyFile[]> {
  const records = new Map<string, CustodyFile[]>();
  for (const file of listCustodyFiles(logfilesDirectory))
    records.set(file.serverId, [...(records.get(file.serverId) ?? []), file]);
  return records;
}

/**
 * The servers with records. Empty when the log directory is missing or cannot be read, which other
 * checks report.
 */
export function listServers(settings: ServerSettings): string[] {
  try {
    return [...recordsOf(settings).keys()];
  } catch {
    return [];
  }
}

/** Every segment of a record with its current size. */
export function wholeSegments(settings: ServerSettings, serverId: string): Segment[] {
  const { logfilesDirectory: logs } = settings;
  const files = recordsOf(settings).get(serverId) ?? [];
  return files.map(({ file, number }) => ({ file, number, size: statSync(join(logs, file)).size }));
}

/**
 * Completes the tree up to a checkpoint, from the record itself, for a user who may not read the
 * tree that root stores. Throws Failure `findings` for a record that does not match the checkpoint.
 */
export function completeTree(
  tree: CustodyTree,
  settings: ServerSettings,
  serverId: string,
  { origin, size, root }: TreeHead,
): void {
  if (tree.size < size) tree.grow(wholeSegments(settings, serverId));
  if (tree.size < size || !tree.root(size).equals(root))
    throw new Failure(
      'findings',
      `${origin} has changed since the checkpoint of ${size} entries was made`,
      'webjobctl verify --custody',
    );
}

function checkpointsPath(settings: ServerSettings, serverId: string): string {
  return join(keepFolder(settings), `custody-checkpoints.${serverId}`);
}

/** All stored checkpoints of a server's record, oldest first. Throws Failure `failed`. */
export function readCheckpoints(settings: ServerSettings, serverId: string): KeptCheckpoint[] {
  const path = checkpointsPath(settings, serverId);
  try {
    return readCheckpointFile(path);
  } catch (error) {
    if (errorCode((error as Failure).cause) === 'ENOENT') return [];
    throw error;
  }
}

/**
 * When the newest checkpoint was stored; undefined when there is none, or it is not visible to this
 * user.
 */
export function newestCheckpoint(settings: ServerSettings, serverId: string): Date | undefined {
  try {
    return statSync(checkpointsPath(settings, serverId)).mtime;
  } catch {
    return undefined;
  }
}

/** The checkpoints in a file, verbatim. Throws Failure `failed` for one that cannot be read. */
export function readPieces(path: string): Piece[] {
  try {
    return splitCheckpoints(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`, undefined, { cause: error });
  }
}

/**
 * The checkpoints in a file with their tree heads. Anything else is skipped, because a full disk
 * may have cut a line off. Throws Failure `failed`.
 */
export function readCheckpointFile(path: string): KeptCheckpoint[] {
  return readPieces(path).flatMap((piece) => {
    try {
      return [{ ...parseCheckpoint(piece.text).head, text: piece.text }];
    } catch {
      return [];
    }
  });
}

/**
 * Stores a checkpoint, which is on disk when this returns. Only for root, one process at a time.
 */
export function keepCheckpoint(settings: ServerSettings, serverId: string, text: string): void {
  const path = checkpointsPath(settings, serverId);
  makeFolder(keepFolder(settings));
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
  const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o644);
  try {
    // Ends a checkpoint that a killed process may have begun, even in the middle of a line.
    appendFileSync(fd, `\n\n${text}`);
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
  syncFolder(keepFolder(settings));
}
