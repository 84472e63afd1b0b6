// webjobctl ca server: replaces the server's certificate in two steps, so that clients are
// prepared.
import { Command } from 'commander';
import { printJson, printLine, say } from '../../cli/output.ts';
import { openContext, parseDays } from '../clients/context.ts';
import { renewServerCertificate } from '../site/authority.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  days: number;
  prepare?: true;
}

const EXPLANATION = `
For a self-signed server certificate that clients trust directly. --prepare makes the next certificate and keeps the
present one in use: add the next one to webjob-server.crt on every client, which then accepts both. Without --prepare
the next certificate, or a new one, replaces the present one; then reload httpd. The key stays.

Examples:
  webjobctl ca server --prepare
  webjobctl ca server && apachectl graceful

Exit codes:
  0  made
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  no self-signed certificate was found, or none could be made`;

export function caServerCommand(): Command {
  return new Command('server')
    .description("renew the server's certificate")
    .option('--prepare', 'make the next certificate, for clients to trust before it is used')
    .option('--days <DAYS>', 'days that the certificate is valid', parseDays, 3650)
    .addHelpText('after', EXPLANATION)
    .action(({ days, prepare }: Options, command: Command) => {
      const certificate = renewServerCertificate(openContext(command).etcDirectory, days, prepare === true);
      if (globalOptions(command).json) printJson({ certificate });
      else printLine(certificate);
      say(
        prepare
          ? 'add it to webjob-server.crt of every client, then: webjobctl ca server'
          : 'clients that do not know it refuse the server; to use it: apachectl graceful',
      );
    });
}
