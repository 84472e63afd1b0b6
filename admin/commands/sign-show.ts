// webjobctl sign show: shows the contents of manifests.
import { Command } from 'commander';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { quote } from '../../cli/shell.ts';
import { describeSigned, type FoundAssignment, isAssignmentFile, readAssignment } from '../../sign/assignments.ts';
import { describeManifest, type FoundManifest, programOf, readManifest } from '../../sign/manifests.ts';
import { describeSchedule } from '../fleet/assigning.ts';
import { globalOptions } from '../site/site.ts';

export function showCommand(): Command {
  return new Command('show')
    .description('show the manifests beside programs, and signed assignments')
    .argument('<FILE...>', 'the programs, or their manifests; signed assignments')
    .addHelpText(
      'after',
      `
Signatures are listed and not checked: webjobctl sign verify checks them.

Example:
  webjobctl sign show /var/integrity/profiles/client1/commands/host.sh

Exit codes:
  0  shown
  2  wrong command line
  4  a file cannot be read, or is not a manifest`,
    )
    .action((files: string[], _: unknown, command: Command) => {
      for (const [index, program] of files.map(programOf).entries()) {
        if (index > 0 && !globalOptions(command).json) printLine('');
        if (isAssignmentFile(program)) {
          const found = readAssignment(program);
          if (globalOptions(command).json) printJson({ file: program, ...describeSigned(found) });
          else printAssignment(program, found);
          continue;
        }
        const found = readManifest(program);
        if (globalOptions(command).json) printJson({ file: program, manifest: found.path, ...describeManifest(found) });
        else print(found);
      }
    });
}

const PROGRAMS = { same: 'the one beside it', different: 'not the one beside it', missing: 'not beside it' };

type Row = [title: string, value: string | number];

function print(found: FoundManifest): void {
  const { name, clients, size, sha256, serial, notBefore, notAfter, signers } = describeManifest(found);
  printRows(found.path, [
    ['name', name],
    ...clients.map((glob): Row => ['client', glob]),
    ...Object.entries({ size, sha256, serial, 'not before': notBefore, 'not after': notAfter }),
    ['program', PROGRAMS[found.program]],
    ...signers.map((signer): Row => ['signed by', signer]),
  ]);
}

function printAssignment(path: string, found: FoundAssignment): void {
  const { command, args, clients, notBefore, notAfter, serial, signers } = describeSigned(found);
  printRows(path, [
    ['command', [command, ...args].map(quote).join(' ')],
    ...clients.map((glob): Row => ['client', glob]),
    ...Object.entries({ when: describeSchedule(found.assignment.schedule), 'not before': notBefore }),
    ...Object.entries({ 'not after': notAfter, serial }),
    ...signers.map((signer): Row => ['signed by', signer]),
  ]);
}

function printRows(path: string, rows: readonly Row[]): void {
  printLine(safeLine(path));
  for (const [title, value] of rows) printLine(`  ${title.padEnd(12)}${safeLine(String(value))}`);
}
