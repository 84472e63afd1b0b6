// webjobctl custody checkpoint: what is to be kept elsewhere of the custody records.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { listCustodyFiles } from 'webjob-locker';
import { makeFolder } from 'webjob-locker/durable';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { printLine, warn } from '../../cli/output.ts';
import { type Checkpoint, formatCheckpoint, readSigningKey } from '../../evidence/checkpoint.ts';
import { NO_NAMES } from '../../evidence/names.ts';
import { CustodyRecords, type Extent } from '../../evidence/records.ts';
import { type Seen, type Sound, Witness } from '../../evidence/witness.ts';
import { openSite } from '../site/site.ts';
import { keepFolder } from '../site/turn.ts';
import { isRoot } from '../site/users.ts';

export function checkpointCommand(): Command {
  return new Command('checkpoint')
    .description('sign how long each custody record is, and the SHA-256 of all of it')
    .requiredOption('--key <file>', 'private Ed25519 key in PEM; keep it off the server')
    .addHelpText(
      'after',
      `
Prints one line of JSON for each custody record in LogfilesDirectory: of its newest file, which commits to all before.
Keep the lines where the server cannot write: on paper, in the mail, on another machine. With one of them, webjobctl
verify --checkpoint finds any change to what the record held then, and any record that was cut off behind it.

Examples:
  webjobctl sign keygen /root/custody
  webjobctl custody checkpoint --key /root/custody.key >> /mnt/elsewhere/checkpoints

Exit codes:
  0  signed
  1  signed, and something in a record is not as it was written: webjobctl verify says what
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  no custody record, or the key or a file cannot be read`,
    )
    .action((_, command: Command) => run(command));
}

function run(command: Command): void {
  const { settings } = openSite(command);
  const { logfilesDirectory: logs } = settings;
  const path = command.opts<{ key: string }>().key;
  const key = readSigningKey(path);
  if (statSync(path).mode & 0o044) warn(`${path} may be read by others than its owner`);
  try {
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
      const extents = records.extents();
      if (extents.length === 0) throw new Failure('failed', `no custody record in ${logs}`);
      for (const { segments } of extents) {
        const { file, size, head } = measureEnd(witness, logs, segments, known);
        printLine(formatCheckpoint({ file, size, head, time: new Date().toISOString() }, key));
      }
      const wrong = extents.flatMap(({ segments, isSound }) => (isSound ? [] : segments.slice(0, 1)));
      const places = new Set([...wrong.map(({ file }) => file), ...cut.map(({ place }) => place)]);
      for (const place of places) warn(`${place} is not as it was written: webjobctl verify --custody`);
      if (places.size > 0) process.exitCode = EXIT_CODES.findings;
      keepSeen(witness, logs, records.sound());
    } finally {
      records.close();
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${logs}: ${errorCode(error)}`, undefined, { cause: error });
  }
}

/**
 * Up to the end of the last record: what is behind it may be one that is being written. It commits
 * to every segment before.
 */
function measureEnd(
  witness: Witness,
  logs: string,
  segments: Extent['segments'],
  known: ReadonlyMap<string, Seen>,
): Omit<Checkpoint, 'time'> {
  const sizeOf = ({ file, size }: Extent['segments'][number]): number => size ?? known.get(file)?.size ?? 0;
  const last = segments.findLast((segment) => sizeOf(segment) > 0) ?? segments[0];
  const { file } = last ?? { file: '' };
  const size = last ? sizeOf(last) : 0;
  const seen = last?.size === undefined ? known.get(file) : undefined;
  return { file, size, head: seen?.head ?? witness.digest(logs, file, size) };
}

function keepSeen(witness: Witness, logs: string, sound: readonly Sound[]): void {
  if (!isRoot() || sound.length === 0 || !['asked', 'none'].includes(witness.state)) return;
  makeFolder(witness.folder);
  withLock(join(witness.folder, 'witness'), () => witness.update(logs, sound));
}
