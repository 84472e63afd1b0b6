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
Without DIRECTORY, the list of the site's own CA is renewed.

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
    .argument('[DIRECTORY]', 'the directory of the CA (default: the CA beside nph-webjob.cfg)')
    .option('--days <DAYS>', 'days that the list is valid (default: 365)', parseDays)
    .addHelpText('after', EXPLANATION)
    .action((folder: string | undefined, { days }: Options, command: Command) => {
      const list = renewRevocationList(folder ?? openContext(command).etcDirectory, days);
      if (globalOptions(command).json) printJson({ list });
      else printLine(list);
      say('httpd reads it when it starts: apachectl graceful');
    });
}
