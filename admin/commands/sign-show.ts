// webjobctl sign show: what manifests say, for people.
import { Command } from 'commander';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { describeManifest, type FoundManifest, programOf, readManifest } from '../../sign/manifests.ts';
import { globalOptions } from '../site/site.ts';

export function showCommand(): Command {
  return new Command('show')
    .description('show the manifests beside programs')
    .argument('<file...>', 'the programs, or their manifests')
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
        const found = readManifest(program);
        if (globalOptions(command).json) printJson({ file: program, manifest: found.path, ...describeManifest(found) });
        else print(found, index > 0);
      }
    });
}

const PROGRAMS = { same: 'the one beside it', different: 'not the one beside it', missing: 'not beside it' };

function print(found: FoundManifest, isNext: boolean): void {
  const { name, clients, size, sha256, serial, notBefore, notAfter, signers } = describeManifest(found);
  if (isNext) printLine('');
  printLine(safeLine(found.path));
  const rows: [string, string | number][] = [
    ...[['name', name] as [string, string], ...clients.map((glob): [string, string] => ['client', glob])],
    ...([
      ['size', size],
      ['sha256', sha256],
      ['serial', serial],
    ] as [string, string | number][]),
    ...([
      ['not before', notBefore],
      ['not after', notAfter],
      ['program', PROGRAMS[found.program]],
    ] as [string, string][]),
    ...signers.map((signer): [string, string] => ['signed by', signer]),
  ];
  for (const [title, value] of rows) printLine(`  ${title.padEnd(12)}${safeLine(String(value))}`);
}
