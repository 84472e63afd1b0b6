// webjobctl ca install: installs a revocation list that was made where the CA's key is kept.
import { Command } from 'commander';
import { printJson, printLine, say } from '../../cli/output.ts';
import { openContext } from '../clients/context.ts';
import { installRevocationList } from '../site/authority.ts';
import { globalOptions } from '../site/site.ts';

const EXPLANATION = `
Installs only a list that the site's CA has signed, that is still valid, and that is not older than the one in use.

Example:
  webjobctl ca install webjob-ca.crl && apachectl graceful

Exit codes:
  0  installed
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the list cannot be read, or is refused`;

export function caInstallCommand(): Command {
  return new Command('install')
    .description('install a revocation list that was made elsewhere')
    .argument('<FILE>', 'the webjob-ca.crl that ca revoke or ca crl made')
    .addHelpText('after', EXPLANATION)
    .action((file: string, _options: unknown, command: Command) => {
      const list = installRevocationList(openContext(command).etcDirectory, file);
      if (globalOptions(command).json) printJson({ list });
      else printLine(list);
      say('httpd reads it when it starts: apachectl graceful');
    });
}
