// webjobctl client show: all that the site knows of one client.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, printLine, safeLine, say } from '../../cli/output.ts';
import { listCertificates } from '../clients/certificates.ts';
import { type Desk, type DeskOptions, openDesk, parseClientId, userFileOption } from '../clients/desk.ts';
import { profileOf } from './client-add.ts';
import { describeCertificate, describeClient, findClients, formatEnd } from './client-list.ts';

const EXPLANATION = `
Example:
  webjobctl client show client1

Exit codes:
  0  shown
  1  there is no such client
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the user file or the CA cannot be read`;

export function showCommand(): Command {
  return new Command('show')
    .description('show what the site knows of a client')
    .argument('<name>', 'the client id', parseClientId)
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, _options: DeskOptions, command: Command) => show(openDesk(command), name));
}

function show(desk: Desk, client: string): void {
  const row = findClients(desk).find((candidate) => candidate.client === client);
  if (!row) {
    say(`there is no client ${client}`);
    process.exitCode = EXIT_CODES.findings;
    return;
  }
  const certificates = listCertificates(desk.etcDirectory).filter((certificate) => certificate.client === client);
  const commands = findCommands(profileOf(desk, client));
  if (desk.isJson) {
    printJson({ ...describeClient(row), certificates: certificates.map(describeCertificate), commands });
    return;
  }
  printLine(`client       ${client}`);
  printLine(`password     ${row.password ?? '-'}`);
  for (const certificate of certificates) printLine(`certificate  ${certificate.serial}  ${formatEnd(certificate)}`);
  printLine(`profile      ${row.hasProfile ? profileOf(desk, client) : '-'}`);
  for (const command of commands) printLine(`command      ${safeLine(command)}`);
}

/** In the order in which a GET looks. */
function findCommands(profile: string): string[] {
  return [join(profile, 'commands'), profile]
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name);
}
