// webjobctl ca sign: signs a certificate for a client, where the CA's key is kept.
import { resolve } from 'node:path';
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode, replaceFile } from '../../cli/files.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { issueCertificate } from '../clients/certificates.ts';
import { parseClientId, parseDays } from '../clients/context.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  days: number;
  out?: string;
}

const EXPLANATION = `
The client makes the request, and the key stays on the client; the name in the request is ignored. On the web server,
give the certificate to webjobctl client add --signed.

Example:
  webjobctl ca sign /root/webjob-ca client1 client1.csr

Exit codes:
  0  signed
  2  wrong command line
  4  the request or the CA cannot be used`;

export function caSignCommand(): Command {
  return new Command('sign')
    .description("sign a client's request")
    .argument('<DIRECTORY>', 'the directory of the CA')
    .argument('<CLIENT>', 'the client id', parseClientId)
    .argument('<FILE>', "the client's request (PEM)")
    .option('--days <DAYS>', 'days that the certificate is valid', parseDays, 730)
    .option('--out <FILE>', 'where to write the certificate (default: CLIENT.crt)')
    .addHelpText('after', EXPLANATION)
    .action((folder: string, client: string, requestFile: string, options: Options, command: Command) => {
      const { certificate } = issueCertificate(folder, client, options.days, { requestFile });
      const path = resolve(options.out ?? `${client}.crt`);
      try {
        replaceFile(path, certificate, { mode: 0o644 });
      } catch (error) {
        throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`, '--out FILE');
      }
      if (globalOptions(command).json) printJson({ client, certificate: path });
      else printLine(path);
    });
}
