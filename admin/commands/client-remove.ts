// webjobctl client remove: nobody enters by that name any more. What it was given and what it sent stays.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { listCertificates, revokeCertificates } from '../clients/certificates.ts';
import { type Desk, type DeskOptions, openDesk, parseClientId, userFileOption } from '../clients/desk.ts';
import { removeNote, withClient } from '../clients/turn.ts';
import { removeUser } from '../clients/userfile.ts';
import { profileOf } from './client-add.ts';

const EXPLANATION = `
Takes the client out of the user file and revokes its certificates. Its programs below profiles, its uploads and its
lines in the log stay: they are evidence.

Example:
  webjobctl client remove client1 && apachectl graceful

Exit codes:
  0  removed
  1  there was no such client
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the user file or the CA cannot be changed`;

export function removeCommand(): Command {
  return new Command('remove')
    .description('let a client in no more')
    .argument('<name>', 'the client id', parseClientId)
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, _options: DeskOptions, command: Command) => remove(openDesk(command), name));
}

function remove(desk: Desk, client: string): void {
  const { hadPassword, serials } = withClient(desk, client, () => {
    const serials = listCertificates(desk.etcDirectory)
      .filter((certificate) => certificate.client === client && certificate.state === 'valid')
      .map(({ serial }) => serial);
    const hadPassword = removeUser(desk.userFile, client);
    if (serials.length > 0) revokeCertificates(desk.etcDirectory, serials);
    removeNote(desk, client);
    return { hadPassword, serials };
  });
  if (serials.length > 0) say('httpd reads the list of revoked certificates when it starts: apachectl graceful');
  if (desk.isJson) printJson({ client, password: hadPassword, revoked: serials });
  else if (hadPassword || serials.length > 0) printLine(`${client} is removed; ${profileOf(desk, client)} stays`);
  if (!hadPassword && serials.length === 0) {
    say(`there is no client ${client}`);
    process.exitCode = EXIT_CODES.findings;
  }
}
