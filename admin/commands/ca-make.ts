// webjobctl ca make: makes a CA for the clients of a site, away from its server.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { openAuthority } from '../site/authority.ts';
import { globalOptions } from '../site/site.ts';

const EXPLANATION = `
Anyone with the key of the CA can act as any client, so keep it on a machine other than the web server. Copy
webjob-ca.crt and webjob-ca.crl from DIRECTORY to the directory of nph-webjob.cfg before webjobctl init --certificates.

Example:
  webjobctl ca make /root/webjob-ca

Exit codes:
  0  made, or it existed
  2  wrong command line
  4  it could not be made`;

export function caMakeCommand(): Command {
  return new Command('make')
    .description('make a CA in a directory')
    .argument('<DIRECTORY>', 'the directory of the CA')
    .addHelpText('after', EXPLANATION)
    .action((folder: string, _options: unknown, command: Command) => {
      try {
        mkdirSync(folder, { recursive: true, mode: 0o700 });
      } catch (error) {
        throw new Failure('failed', `${folder} cannot be made: ${errorCode(error)}`);
      }
      openAuthority(folder);
      const [certificate, list] = ['crt', 'crl'].map((kind) => join(folder, `webjob-ca.${kind}`));
      if (globalOptions(command).json) printJson({ certificate, list });
      else for (const path of [certificate, list]) printLine(path ?? '');
      say('copy these two to the web server; everything else stays here');
    });
}
