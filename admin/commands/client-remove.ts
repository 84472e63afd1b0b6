// webjobctl client remove: revokes a client's access. Its profile and its uploads stay.
import { Command } from 'commander';
import { EXIT_CODES } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { listCertificates, revokeCertificates } from '../clients/certificates.ts';
import { removeNote, withClient } from '../clients/client-lock.ts';
import {
  type Context,
  type ContextOptions,
  findServer,
  openContext,
  parseClientId,
  userFileOption,
} from '../clients/context.ts';
import { removeLimits } from '../clients/limits.ts';
import { beginPasswordProof, issueCanaries, proveRevocation } from '../clients/proof.ts';
import { endResultKeys } from '../clients/result-keys.ts';
import { readUserFile, removeUser } from '../clients/userfile.ts';
import { addHttpdOptions, type HttpdOptions, reloadCommand, reloadHttpd } from '../site/httpd-control.ts';
import { profileOf } from './client-add.ts';

interface Options extends ContextOptions, HttpdOptions {
  apply?: true;
  url?: string;
}

const EXPLANATION = `
Removes the client from the user file, revokes its certificates, and removes the counts of its limits. Its programs,
uploads and log lines stay: they are evidence. Its result keys expire now, and are kept to verify its results.

httpd reads the user file at each request, but the revocation list only when it starts. --apply reloads httpd and
proves that it refuses removed clients: with a user and certificates that are made and removed for the purpose.

Example:
  webjobctl client remove client1 --apply

Exit codes:
  0  removed
  1  there was no such client
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the user file or the CA cannot be changed; with --apply: the client is removed, but httpd may still accept it`;

export function removeCommand(): Command {
  const command = new Command('remove')
    .description("revoke a client's access")
    .argument('<CLIENT>', 'the client id', parseClientId)
    .addOption(userFileOption())
    .option('--apply', 'reload httpd, and prove that it refuses the client')
    .option('--url <URL>', 'URL of the server, for test requests (default: from init)');
  return addHttpdOptions(command)
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => remove(openContext(command), name, options));
}

async function remove(context: Context, client: string, options: Options): Promise<void> {
  const url = options.apply ? findServer(context, options.url, undefined).url : '';
  const proof = options.apply && hasPassword(context, client) ? await beginPasswordProof(context, url) : undefined;
  let isKnown = false;
  try {
    const { hadPassword, serials, canaries } = withClient(context, client, () => {
      // Under the lock, because another command may just have given it a certificate.
      const serials = listCertificates(context.etcDirectory)
        .filter((certificate) => certificate.client === client && certificate.state === 'valid')
        .map(({ serial }) => serial);
      const hadPassword = hasPassword(context, client);
      const canaries = options.apply && serials.length > 0 ? issueCanaries(context) : undefined;
      removeUser(context.userFile, client);
      proof?.remove();
      endResultKeys(context, client);
      if (serials.length > 0)
        revokeCertificates(context.etcDirectory, [...serials, ...(canaries ? [canaries.revoked.serial] : [])]);
      removeNote(context, client);
      return { hadPassword, serials, canaries };
    });
    isKnown = hadPassword || serials.length > 0;
    if (context.isJson) printJson({ client, password: hadPassword, revoked: serials });
    else if (isKnown) printLine(`${client} is removed; ${profileOf(context, client)} stays`);
    if (options.apply && isKnown) {
      reloadHttpd(options);
      await proof?.check();
      if (canaries) await proveRevocation(context, url, canaries);
      say(`httpd at ${url} was reloaded and refuses removed clients`);
    } else if (isKnown) sayWhatStillWorks(options, hadPassword, serials.length > 0);
  } finally {
    proof?.remove();
    // As late as possible, because requests are counted until the client is locked out.
    const left = removeLimits(context.settings, client);
    if (left !== undefined) say(`warning: the counts of its limits are not removed: ${left}`);
  }
  if (!isKnown) {
    say(`there is no client ${client}`);
    process.exitCode = EXIT_CODES.findings;
  }
}

function hasPassword({ userFile }: Context, client: string): boolean {
  return readUserFile(userFile).some(({ name }) => name === client);
}

/** Reports which credentials still work until httpd is reloaded. */
export function sayWhatStillWorks(options: HttpdOptions, hadPassword: boolean, hadCertificates: boolean): void {
  const reload = reloadCommand(options).join(' ');
  if (hadPassword) say('its password is refused from now on, unless httpd caches passwords: AuthnCacheProvideFor');
  if (hadCertificates)
    say(
      `its certificates are accepted until httpd is reloaded, which reads the revocation list when it starts: ${reload}`,
    );
}
