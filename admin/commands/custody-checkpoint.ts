// webjobctl custody checkpoint: signs checkpoints of the custody record for off-site storage.
import type { KeyObject } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { listCustodyFiles, parseCustodyName } from 'webjob-locker';
import { makeFolder } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { errorCode, requireRootsOwn } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { printJson, printLine, safeLine, say, warn } from '../../cli/output.ts';
import { checkCheckpoint, readCheckingKey, readSigningKey, serverOf } from '../../evidence/checkpoint.ts';
import { NO_NAMES } from '../../evidence/names.ts';
import { CustodyRecords, type Extent } from '../../evidence/records.ts';
import { formatTreeHead, type TreeHead } from '../../evidence/tlog.ts';
import type { CustodyTree, Segment } from '../../evidence/tree.ts';
import { type Seen, type Sound, Witness } from '../../evidence/witness.ts';
import { signerOf } from '../../notes/ed25519.ts';
import { type NoteError, signNote } from '../../notes/note.ts';
import { defaultOrigin, keepCheckpoint, openTree, readPieces, requireOrigin } from '../site/logs.ts';
import { globalOptions, openSite } from '../site/site.ts';
import { keepFolder } from '../site/site-lock.ts';
import { isRoot } from '../site/users.ts';

interface Options {
  key?: string;
  origin?: string;
  server?: string;
  unsigned?: true;
  add?: string;
}

const EXPLANATION = `
A checkpoint is a signed note (c2sp.org/tlog-checkpoint) with the number of entries of a custody record and the root of
the Merkle tree over them (RFC 6962); there is one for each record in LogfilesDirectory. Keep it where the server cannot
write: on paper, in the mail, on another machine. With it, webjobctl verify --checkpoint finds any later change to these
entries and a record that was truncated, and custody prove shows that a job was among them.

The first checkpoint of a record names it: ORIGIN/SERVER, where the origin is HOST/webjob unless --origin is given.
The name stays. Root keeps the checkpoints and the tree in config/nph-webjob/, so the next one reads only new entries.
A record that contradicts its last checkpoint gets no other until it is adopted.

If the key must not be on the server, --unsigned prints the text to sign, and --add stores the signed note, with any
signatures of witnesses. With --add, --key is the public key.

Examples:
  webjobctl sign keygen /root/custody
  webjobctl custody checkpoint --key /root/custody.key --origin example.org/webjob >> /mnt/elsewhere/checkpoints
  webjobctl custody checkpoint --unsigned --server server_1 > text
  webjobctl custody checkpoint --add signed-note --key custody.pub

Exit codes:
  0  signed
  1  a record has been changed: webjobctl verify says where
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  no custody record, or the key or a file cannot be read`;

export function checkpointCommand(): Command {
  return new Command('checkpoint')
    .description('sign checkpoints of the custody record for off-site storage')
    .option('--key <FILE>', 'the private Ed25519 key in PEM; keep it off the server')
    .option('--origin <NAME>', 'name of the logs, before the ServerId (default: HOST/webjob)')
    .option('--server <SERVER>', 'only the record of this ServerId')
    .option('--unsigned', 'print the text to be signed elsewhere')
    .option('--add <FILE>', 'store notes that were signed elsewhere, or that witnesses have cosigned')
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) => run(command, options));
}

function run(command: Command, options: Options): void {
  const { settings } = openSite(command);
  const sign = makeSigner(options);
  const isJson = globalOptions(command).json === true;
  try {
    inTurnOfRoot(settings, () => {
      if (options.add !== undefined) addCheckpoints(settings, options.add, readCheckingKey(options.key ?? ''));
      else
        measure(settings, options, (serverId, head) => {
          const text = sign(head);
          if (isRoot() && !options.unsigned) keepCheckpoint(settings, serverId, text);
          if (!isJson) printLine(text.slice(0, -1));
          else
            printJson({
              server: serverId,
              origin: head.origin,
              size: head.size,
              root: head.root.toString('base64'),
              note: text,
            });
        });
    });
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${settings.logfilesDirectory} cannot be used: ${errorCode(error)}`, undefined, {
      cause: error,
    });
  }
}

/**
 * Returns a function that makes the note, or its text, of a tree head. Throws Failure for options
 * that do not go together.
 */
function makeSigner({ key: path, unsigned, add, origin, server }: Options): (head: TreeHead) => string {
  if (origin !== undefined) requireOrigin(origin);
  if (add !== undefined) {
    if (unsigned || origin !== undefined || server !== undefined)
      throw new Failure('usage', '--add takes only --key, the public key of the notes');
    if (path === undefined) throw new Failure('usage', '--add requires --key, the public key of the notes');
    return formatTreeHead;
  }
  if (unsigned) {
    if (path !== undefined) throw new Failure('usage', '--unsigned cannot be combined with --key');
    return formatTreeHead;
  }
  if (path === undefined)
    throw new Failure(
      'usage',
      'use --key, or --unsigned to sign elsewhere',
      'webjobctl sign keygen /root/custody makes a key',
    );
  const key = readSigningKey(path);
  if (statSync(path).mode & 0o044) warn(`${path} can be read by users other than its owner`);
  return (head) => signNote(formatTreeHead(head), [signerOf(head.origin, key)]);
}

/** Only one process at a time writes the stored trees and checkpoints. */
function inTurnOfRoot(settings: ServerSettings, work: () => void): void {
  if (!isRoot()) {
    work();
    return;
  }
  const folder = keepFolder(settings);
  requireRootsOwn(folder);
  makeFolder(folder);
  withLock(join(folder, 'custody-tree'), work);
}

/**
 * Adds the new entries of the records to their trees, and yields the head of each tree that extends
 * its earlier state.
 */
function measure(
  settings: ServerSettings,
  { origin, server, unsigned }: Options,
  tell: (serverId: string, head: TreeHead) => void,
): void {
  const { logfilesDirectory: logs } = settings;
  const witness = new Witness(keepFolder(settings));
  const known = new Map<string, Seen>();
  for (const { file } of listCustodyFiles(logs)) {
    const seen = witness.untouched(logs, file);
    if (seen) known.set(file, seen);
  }
  const cut = witness.state === 'asked' ? witness.compare(logs, (file) => !known.has(file)) : [];
  const records = new CustodyRecords([logs], {
    share: NO_NAMES,
    skip: (_, { file }) => known.has(file),
    resume: (_, { file }) => witness.knownUpTo(logs, file),
  });
  try {
    records.refresh();
    const extents = records.extents().flatMap(({ segments, isSound }) => {
      const serverId = parseCustodyName(segments[0]?.file ?? '')?.serverId;
      return serverId === undefined || (server ?? serverId) !== serverId ? [] : [{ serverId, segments, isSound }];
    });
    if (extents.length === 0)
      throw new Failure('failed', `no custody record${server ? ` of ${server}` : ''} in ${logs}`);
    if (unsigned && extents.length > 1)
      throw new Failure(
        'usage',
        'there are several records, and each is signed separately',
        `--server ${extents[0]?.serverId}`,
      );
    const wrong = extents.flatMap(({ segments, isSound }) => (isSound ? [] : segments.slice(0, 1)));
    const places = new Set([...wrong.map(({ file }) => file), ...cut.map(({ place }) => place)]);
    const base = requireOrigin(origin ?? defaultOrigin(settings));
    for (const { serverId, segments } of extents) {
      const tree = openTree(settings, serverId, {
        origin: base,
        digest: (file, size) => digestOf(witness, known, logs, file, size),
      });
      try {
        const head = growTree(tree, sizesOf(segments, known), places, origin && `${origin}/${serverId}`);
        if (head) tell(serverId, head);
      } finally {
        tree.close();
      }
    }
    for (const place of places) warn(`${place} has been changed: webjobctl verify --custody`);
    if (places.size > 0) process.exitCode = EXIT_CODES.findings;
    keepSeen(witness, logs, records.sound());
  } finally {
    records.close();
  }
}

/**
 * Adds new entries to a tree, stores it, and returns its head; undefined for a record that no
 * longer matches the tree.
 */
function growTree(
  tree: CustodyTree,
  segments: readonly Segment[],
  places: Set<string>,
  origin: string | undefined,
): TreeHead | undefined {
  if (origin !== undefined && tree.origin !== origin && !tree.isNew && !tree.origin.startsWith(`${origin}/r`))
    throw new Failure('usage', `the first checkpoint named this log ${tree.origin}`, 'leave --origin out');
  const changed = tree.findChanged(segments);
  if (changed !== undefined) {
    places.add(changed);
    warn(`${tree.origin} gets no checkpoint: its first ${tree.size} entries have changed`);
    return undefined;
  }
  tree.grow(segments, isRoot());
  if (isRoot()) tree.save();
  return { origin: tree.origin, size: tree.size, root: tree.root() };
}

/**
 * The segments, the last one up to the end of its last record: bytes after it may be a record that
 * is being written.
 */
function sizesOf(segments: Extent['segments'], known: ReadonlyMap<string, Seen>): Segment[] {
  return segments.flatMap(({ file, size }) => {
    const name = parseCustodyName(file);
    return name ? [{ file, number: name.number, size: size ?? known.get(file)?.size ?? 0 }] : [];
  });
}

function digestOf(
  witness: Witness,
  known: ReadonlyMap<string, Seen>,
  logs: string,
  file: string,
  size: number,
): string {
  const seen = known.get(file);
  return seen?.size === size ? seen.head : witness.digest(logs, file, size);
}

/**
 * Stores those notes of a file that match the trees and are signed by the key. Throws Failure
 * `failed`.
 */
function addCheckpoints(settings: ServerSettings, path: string, key: KeyObject): void {
  if (!isRoot()) throw new Failure('failed', 'only root keeps checkpoints');
  const pieces = readPieces(path);
  if (pieces.length === 0) throw new Failure('failed', `${path} contains no checkpoint`);
  for (const { line, text } of pieces) {
    const where = `${path}, line ${line}`;
    const head = readHead(where, text, key);
    const tree = openTree(settings, serverOf(head.origin));
    try {
      if (tree.isNew || tree.origin !== head.origin || tree.size < head.size)
        throw new Failure(
          'failed',
          `${where}: this site has no tree of ${head.size} entries of ${head.origin}`,
          'custody checkpoint --unsigned makes it',
        );
      if (!tree.root(head.size).equals(head.root))
        throw new Failure('failed', `${where}: the first ${head.size} entries of ${head.origin} differ here`);
    } finally {
      tree.close();
    }
    keepCheckpoint(settings, serverOf(head.origin), text);
    say(safeLine(`kept: ${head.origin} of ${head.size} entries`));
  }
}

function readHead(where: string, text: string, key: KeyObject): TreeHead {
  try {
    return checkCheckpoint(text, { key });
  } catch (error) {
    throw new Failure('failed', `${where} is not a checkpoint signed with this key: ${(error as NoteError).message}`);
  }
}

function keepSeen(witness: Witness, logs: string, sound: readonly Sound[]): void {
  if (!isRoot() || sound.length === 0 || !['asked', 'none'].includes(witness.state)) return;
  makeFolder(witness.folder);
  withLock(join(witness.folder, 'witness'), () => witness.update(logs, sound));
}
