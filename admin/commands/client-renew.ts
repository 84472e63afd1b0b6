// webjobctl client renew: issues another certificate, for the same key or a new one.
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import {
  findLatest,
  issueCertificate,
  keepRequest,
  listCertificates,
  revokeCertificates,
} from '../clients/certificates.ts';
import { checkHasNoKey, writeCertificate } from '../clients/client-kit.ts';
import { withClient } from '../clients/client-lock.ts';
import {
  type Context,
  type ContextOptions,
  findServer,
  openContext,
  parseClientId,
  parseDays,
} from '../clients/context.ts';
import { issueCanaries, proveRevocation } from '../clients/proof.ts';
import { listResultKeys } from '../clients/result-keys.ts';
import { addHttpdOptions, type HttpdOptions, reloadHttpd } from '../site/httpd-control.ts';
import { sayWhatStillWorks } from './client-remove.ts';

interface Options extends ContextOptions, HttpdOptions {
  newKey?: true;
  csr?: string;
  days: number;
  revoke?: true;
  apply?: true;
  url?: string;
  out?: string;
}

const EXPLANATION = `
Writes CLIENT.crt into the directory CLIENT, and with --new-key CLIENT.key, never over an existing file. The earlier
certificate stays valid until its date, so the client can change at any time; --revoke revokes it now. The result key
is a different key, and stays: webjobctl client result-key makes a new one.

Example:
  webjobctl client renew client3 --days 365

Exit codes:
  0  renewed
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the client has no certificate, or something could not be made`;

export function renewCommand(): Command {
  const command = new Command('renew')
    .description("renew a client's certificate")
    .argument('<CLIENT>', 'the client id', parseClientId)
    .option('--new-key', 'make a new key (default: keep it)')
    .option('--csr <FILE>', 'make a certificate for this request; the key stays on the client')
    .option('--days <DAYS>', 'days that the certificate is valid', parseDays, 730)
    .option('--revoke', 'revoke the earlier certificates')
    .option('--out <DIRECTORY>', 'where to write the certificate (default: CLIENT)')
    .option('--apply', 'with --revoke: reload httpd, and prove that it refuses the earlier certificates')
    .option('--url <URL>', 'URL of the server, for test requests (default: from init)');
  return addHttpdOptions(command)
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => renew(openContext(command), name, options));
}

async function renew(context: Context, client: string, options: Options): Promise<void> {
  if (options.apply && !options.revoke) throw new Failure('usage', '--apply requires --revoke');
  if (options.newKey && options.csr !== undefined) throw new Failure('usage', 'use one of --new-key and --csr');
  const url = options.apply ? findServer(context, options.url, undefined).url : '';
  const canaries = options.apply ? issueCanaries(context) : undefined;
  const path = withClient(context, client, () => renewAlone(context, client, options, canaries?.revoked.serial));
  const latest = findLatest(listCertificates(context.etcDirectory), client);
  const resultKeys = listResultKeys(context, client)
    .filter(({ until }) => until === undefined)
    .map(({ name, id }) => `${name}+${id}`);
  if (context.isJson) {
    const until = latest?.until.toISOString();
    printJson({ client, certificate: path, serial: latest?.serial, until, resultKeys });
  } else printLine(path);
  // Anyone who has one key of a client may have the other too.
  if ((options.newKey || options.revoke) && resultKeys.length > 0) {
    const remedy = `webjobctl client result-key ${client} --end`;
    say(`${client} signs its results with ${resultKeys.join(' and ')} as before; to change that as well: ${remedy}`);
  }
  if (canaries) {
    reloadHttpd(options);
    await proveRevocation(context, url, canaries);
    say(`httpd at ${url} was reloaded and refuses revoked certificates`);
  } else if (options.revoke) sayWhatStillWorks(options, false, true);
}

/** Issues the certificate; returns its path. */
function renewAlone(
  { etcDirectory }: Context,
  client: string,
  { out, newKey, csr, days, revoke }: Options,
  canary: string | undefined,
): string {
  const folder = out ?? client;
  const earlier = listCertificates(etcDirectory).filter((one) => one.client === client && one.state !== 'revoked');
  if (earlier.length === 0)
    throw new Failure('failed', `${client} has no certificate`, 'webjobctl client add --cert makes the first one');
  if (newKey) checkHasNoKey(folder, client);
  const source = newKey ? 'new key' : csr === undefined ? 'same key' : { requestFile: csr };
  const issued = issueCertificate(etcDirectory, client, days, source);
  const path = writeCertificate(folder, client, issued);
  keepRequest(etcDirectory, client, issued);
  if (revoke) revokeCertificates(etcDirectory, [...earlier.map(({ serial }) => serial), ...(canary ? [canary] : [])]);
  return path;
}
