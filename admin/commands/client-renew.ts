// webjobctl client renew: another certificate, for the same key or a new one.
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
import { type Desk, type DeskOptions, openDesk, parseClientId, parseDays } from '../clients/desk.ts';
import { checkHasNoKey, writeCertificate } from '../clients/parcel.ts';
import { withClient } from '../clients/turn.ts';

interface Options extends DeskOptions {
  newKey?: true;
  csr?: string;
  days: number;
  revoke?: true;
  out?: string;
}

const EXPLANATION = `
Writes NAME.crt into the folder NAME, and with --new-key NAME.key, which is never written over another. The earlier
certificate stays good to its date, so that the client can change over in its own time; --revoke ends it now.

Example:
  webjobctl client renew client3 --days 365

Exit codes:
  0  renewed
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the client has no certificate, or something could not be made`;

export function renewCommand(): Command {
  return new Command('renew')
    .description("renew a client's certificate")
    .argument('<name>', 'the client id', parseClientId)
    .option('--new-key', 'for a new key; else the key stays')
    .option('--csr <file>', 'for this request; the key stays on the client')
    .option('--days <days>', 'how long it is good', parseDays, 730)
    .option('--revoke', 'revoke the earlier ones')
    .option('--out <folder>', 'where to put it (else NAME)')
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => renew(openDesk(command), name, options));
}

function renew(desk: Desk, client: string, options: Options): void {
  if (options.newKey && options.csr !== undefined) throw new Failure('usage', 'say one of --new-key and --csr');
  const path = withClient(desk, client, () => renewAlone(desk, client, options));
  if (options.revoke) say('httpd reads the list of revoked certificates when it starts: apachectl graceful');
  const latest = findLatest(listCertificates(desk.etcDirectory), client);
  if (desk.isJson) printJson({ client, certificate: path, serial: latest?.serial, until: latest?.until.toISOString() });
  else printLine(path);
}

/** Returns the path of the certificate. */
function renewAlone({ etcDirectory }: Desk, client: string, { out, newKey, csr, days, revoke }: Options): string {
  const folder = out ?? client;
  const earlier = listCertificates(etcDirectory).filter((one) => one.client === client && one.state !== 'revoked');
  if (earlier.length === 0)
    throw new Failure('failed', `${client} has no certificate`, 'webjobctl client add --cert makes the first one');
  if (newKey) checkHasNoKey(folder, client);
  const source = newKey ? 'new key' : csr === undefined ? 'same key' : { requestFile: csr };
  const issued = issueCertificate(etcDirectory, client, days, source);
  const path = writeCertificate(folder, client, issued);
  keepRequest(etcDirectory, client, issued);
  if (revoke)
    revokeCertificates(
      etcDirectory,
      earlier.map(({ serial }) => serial),
    );
  return path;
}
