// webjobctl custody consistency: proves that a later checkpoint extends an earlier one.
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { serverOf } from '../../evidence/checkpoint.ts';
import { formatExtension } from '../../evidence/tlog.ts';
import { completeTree, type KeptCheckpoint, openTree, readCheckpointFile } from '../site/logs.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';

const EXPLANATION = `
OLD and NEW are files with a checkpoint; of several in a file the last one counts. Prints the proof in the form that
witnesses accept (c2sp.org/tlog-witness, add-checkpoint): the old size, the hashes, and the new checkpoint. Anyone with
the old checkpoint and the public key can check it: webjobctl custody check --old OLD.

Examples:
  webjobctl custody consistency january february > proof
  webjobctl custody check proof --key custody.pub --old january

Exit codes:
  0  printed
  1  the record contradicts one of the checkpoints, or they are not of one log
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read, or contains no checkpoint`;

export function consistencyCommand(): Command {
  return new Command('consistency')
    .description('prove that a later checkpoint extends an earlier one')
    .argument('<OLD>', 'a file with the earlier checkpoint')
    .argument('<NEW>', 'a file with the later one')
    .addHelpText('after', EXPLANATION)
    .action((older: string, newer: string, _, command: Command) =>
      run(openSite(command), lastOf(older), lastOf(newer), globalOptions(command).json === true),
    );
}

/** The last checkpoint of a file. Throws Failure `failed`. */
export function lastOf(path: string): KeptCheckpoint {
  const last = readCheckpointFile(path).at(-1);
  if (last) return last;
  throw new Failure('failed', `${path} contains no checkpoint`, 'webjobctl custody checkpoint makes one');
}

function run({ settings }: Site, older: KeptCheckpoint, newer: KeptCheckpoint, isJson: boolean): void {
  if (older.origin !== newer.origin)
    throw new Failure(
      'findings',
      `the checkpoints are of two logs: ${older.origin} and ${newer.origin}`,
      'give two checkpoints of one log',
    );
  if (older.size > newer.size)
    throw new Failure(
      'findings',
      `the old one has ${older.size} entries, the new one ${newer.size}`,
      'OLD comes first',
    );
  const serverId = serverOf(newer.origin);
  const tree = openTree(settings, serverId);
  try {
    completeTree(tree, settings, serverId, newer);
    completeTree(tree, settings, serverId, older);
    const path = tree.proveConsistency(older.size, newer.size);
    const proof = formatExtension({ older: older.size, path, checkpoint: newer.text });
    if (isJson) printJson({ origin: newer.origin, old: older.size, new: newer.size, proof });
    else printLine(proof.slice(0, -1));
  } finally {
    tree.close();
  }
}
