// webjobctl ca: manages certificates, on the server and where the CA's key is kept.
import { Command } from 'commander';
import { caCrlCommand } from './ca-crl.ts';
import { caInstallCommand } from './ca-install.ts';
import { caMakeCommand } from './ca-make.ts';
import { caRevokeCommand } from './ca-revoke.ts';
import { caServerCommand } from './ca-server.ts';
import { caSignCommand } from './ca-sign.ts';

const EXPLANATION = `
The CA of a site is beside nph-webjob.cfg, or in a directory on a machine other than the web server. There ca make,
sign, revoke and crl need only that directory.

Examples:
  webjobctl ca crl
  webjobctl ca server --prepare
  webjobctl ca sign /root/webjob-ca client1 client1.csr

Exit codes: those of webjobctl; each command's own are in its help.`;

export function caCommand(): Command {
  const command = new Command('ca')
    .description("renew certificates and the revocation list, sign clients' requests")
    .helpCommand(false)
    .addHelpText('after', EXPLANATION);
  const makers = [caCrlCommand, caServerCommand, caMakeCommand, caSignCommand, caRevokeCommand, caInstallCommand];
  for (const make of makers) command.addCommand(make());
  return command;
}
