// webjobctl ca crl: renews the revocation list before it expires.
import { Command } from 'commander';
import { printJson, printLine, say } from '../../cli/output.ts';
import { openContext, parseDays } from '../clients/context.ts';
import { renewRevocationList } from '../site/authority.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  days?: number;
}

const EXPLANATION = `
httpd refuses every client when the list is past its date, so renew it from cron once a month, and reload httpd.
Without DIRECTORY it is the list of the site's own CA.

Example:
  webjobctl ca crl && apachectl graceful

Exit codes:
  0  made
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the CA cannot be used`;

export function caCrlCommand(): Command {
  return new Command('crl')
    .description('renew the revocation list')
    .argument('[directory]', 'where the CA is kept, if not beside nph-webjob.cfg')
    .option('--days <days>', 'days of validity (default: 365)', parseDays)
    .addHelpText('after', EXPLANATION)
    .action((folder: string | undefined, { days }: Options, command: Command) => {
      const list = renewRevocationList(folder ?? openContext(command).etcDirectory, days);
      if (globalOptions(command).json) printJson({ list });
      else printLine(list);
      say('httpd reads it when it starts: apachectl graceful');
    });
}
