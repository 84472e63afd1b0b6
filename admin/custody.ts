// webjobctl custody checkpoint: what is to be kept elsewhere of the custody records.
import { closeSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { Chain, digestRange } from 'webjob-locker';
import { formatCheckpoint, readSigningKey } from '../evidence/checkpoint.ts';
import { listCustodyFiles, openCustodyFile } from '../evidence/records.ts';
import { adoptCommand } from './custody-adopt.ts';
import { EXIT_CODES, Failure } from './failure.ts';
import { errorCode } from './files.ts';
import { printLine, warn } from './output.ts';
import { openSite } from './site.ts';

export function custodyCommand(): Command {
  return new Command('custody')
    .description('sign and adopt what the custody record says')
    .helpCommand(false)
    .addCommand(checkpointCommand())
    .addCommand(adoptCommand())
    .addHelpText(
      'after',
      `
Examples:
  webjobctl custody checkpoint --key /root/custody.key >> /mnt/elsewhere/checkpoints
  webjobctl custody adopt --reason 'uploads of the server before this one'

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
}

function checkpointCommand(): Command {
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
  const { logfilesDirectory } = openSite(command).settings;
  const path = command.opts<{ key: string }>().key;
  const key = readSigningKey(path);
  if (statSync(path).mode & 0o044) warn(`${path} may be read by others than its owner`);
  try {
    const files = listCustodyFiles(logfilesDirectory);
    if (files.length === 0) throw new Failure('failed', `there is no custody record in ${logfilesDirectory}`);
    for (const { file } of files) {
      const { size, head, isSound } = measure(join(logfilesDirectory, file));
      printLine(formatCheckpoint({ file, size, head, time: new Date().toISOString() }, key));
      if (isSound) continue;
      warn(`${file} is not as it was written: webjobctl verify --custody`);
      process.exitCode = EXIT_CODES.findings;
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${logfilesDirectory}: ${errorCode(error)}`, undefined, { cause: error });
  }
}

/** Up to the end of the last record: what is behind it may be one that is being written. */
function measure(path: string): { size: number; head: string; isSound: boolean } {
  const fd = openCustodyFile(path);
  try {
    const chain = new Chain(fd);
    let isSound = true;
    for (const { fault } of chain.walk()) if (fault) isSound = false;
    const { size } = chain;
    return { size, head: digestRange(fd, 0, size), isSound };
  } finally {
    closeSync(fd);
  }
}
