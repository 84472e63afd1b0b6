// webjobctl custody checkpoint: what is to be kept elsewhere of the custody records.
import { closeSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { Chain, digestRange } from 'webjob-locker';
import { makeFolder } from 'webjob-locker/durable';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { printLine, warn } from '../../cli/output.ts';
import { formatCheckpoint, readSigningKey } from '../../evidence/checkpoint.ts';
import { listCustodyFiles, openCustodyFile } from '../../evidence/records.ts';
import { type Sound, Witness } from '../../evidence/witness.ts';
import { openSite } from '../site/site.ts';
import { keepFolder } from '../site/turn.ts';
import { isRoot } from '../site/users.ts';

export function checkpointCommand(): Command {
  return new Command('checkpoint')
    .description('sign how long each custody record is, and the SHA-256 of all of it')
    .requiredOption('--key <file>', 'a private Ed25519 key in PEM, which is no business of the server')
    .addHelpText(
      'after',
      `
Prints one line of JSON for each custody record in LogfilesDirectory. Keep the lines where the server cannot write: on
paper, in the mail, on another machine. With one of them, webjobctl verify --checkpoint finds any change to what the
record held then, and any record that was cut off behind it.

Examples:
  webjobctl sign keygen /root/custody
  webjobctl custody checkpoint --key /root/custody.key >> /mnt/elsewhere/checkpoints

Exit codes:
  0  signed
  1  signed, and something in a record is not as it was written: webjobctl verify says what
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  there is no custody record, or the key or a file cannot be read`,
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
    const files = listCustodyFiles(logs);
    if (files.length === 0) throw new Failure('failed', `there is no custody record in ${logs}`);
    const witness = new Witness(keepFolder(settings));
    const read: Measured[] = [];
    for (const { file } of files) {
      const seen = witness.untouched(logs, file);
      const measured: Omit<Measured, 'isSound'> & { isSound?: boolean } = seen ?? measure(logs, file);
      printLine(
        formatCheckpoint({ file, size: measured.size, head: measured.head, time: new Date().toISOString() }, key),
      );
      if (measured.isSound !== undefined) read.push({ ...measured, isSound: measured.isSound });
    }
    const isCut = read.length > 0 && witness.state === 'asked' ? witness.compare(logs).map(({ place }) => place) : [];
    const wrong = read.filter(({ file, isSound }) => !isSound || isCut.includes(file));
    for (const { file } of wrong) warn(`${file} is not as it was written: webjobctl verify --custody`);
    if (wrong.length > 0) process.exitCode = EXIT_CODES.findings;
    keepSeen(witness, logs, read);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${logs}: ${errorCode(error)}`, undefined, { cause: error });
  }
}

interface Measured extends Sound {
  head: string;
  isSound: boolean;
}

/** Up to the end of the last record: what is behind it may be one that is being written. */
function measure(logs: string, file: string): Measured {
  const fd = openCustodyFile(join(logs, file));
  try {
    const chain = new Chain(fd);
    let [isSound, newest] = [true, 0];
    for (const { fault, facts } of chain.walk()) {
      if (fault) isSound = false;
      newest = Math.max(newest, Date.parse(String(facts?.time)) || 0);
    }
    const { size } = chain;
    return { file, size, newest, head: digestRange(fd, 0, size), isSound };
  } finally {
    closeSync(fd);
  }
}

function keepSeen(witness: Witness, logs: string, read: readonly Measured[]): void {
  const sound = read.filter(({ isSound }) => isSound);
  if (!isRoot() || sound.length === 0 || !['asked', 'none'].includes(witness.state)) return;
  makeFolder(witness.folder);
  withLock(join(witness.folder, 'witness'), () => witness.update(logs, sound));
}
