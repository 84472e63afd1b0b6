// webjobctl ca revoke: revokes a client's certificates, where the CA's key is kept.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { listCertificates, revokeCertificates } from '../clients/certificates.ts';
import { parseClientId } from '../clients/context.ts';
import { revocationListOf } from '../site/authority.ts';
import { globalOptions } from '../site/site.ts';

const EXPLANATION = `
Renews the revocation list. On the web server run webjobctl ca install and reload httpd. Until then the certificates
are still accepted.

Example:
  webjobctl ca revoke /root/webjob-ca client1

Exit codes:
  0  revoked
  1  the client has no valid certificate
  2  wrong command line
  4  the CA cannot be used`;

export function caRevokeCommand(): Command {
  return new Command('revoke')
    .description("revoke a client's certificates")
    .argument('<DIRECTORY>', 'the directory of the CA')
    .argument('<CLIENT>', 'the client id', parseClientId)
    .addHelpText('after', EXPLANATION)
    .action((folder: string, client: string, _options: unknown, command: Command) => {
      const revoked = listCertificates(folder)
        .filter((one) => one.client === client && one.state === 'valid')
        .map(({ serial }) => serial);
      if (revoked.length > 0) revokeCertificates(folder, revoked);
      else {
        say(`${client} has no valid certificate`);
        process.exitCode = EXIT_CODES.findings;
      }
      const list = revocationListOf(folder);
      if (globalOptions(command).json) printJson({ client, revoked, list });
      else if (revoked.length > 0) printLine(list);
    });
}
