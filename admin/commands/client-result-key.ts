// webjobctl client result-key: replaces the key with which a client signs its results.
import { Command } from 'commander';
import { parseInstant } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { formatVerifierKey } from '../../notes/ed25519.ts';
import { writeResultKey } from '../clients/client-kit.ts';
import { withClient } from '../clients/client-lock.ts';
import { type Context, openContext, parseClientId, userFileOption } from '../clients/context.ts';
import { addResultKey, endResultKeys, makeResultKey, readPublicResultKey } from '../clients/result-keys.ts';
import { findClients } from './client-list.ts';

interface Options {
  public?: string;
  from?: Date;
  end?: true;
  out?: string;
}

const EXPLANATION = `
Writes CLIENT.result.key into the directory CLIENT, never over an existing file, for ResultKeyFile in webjob.conf. With
--public the client made the key itself, as with "openssl genpkey -algorithm ed25519", and the server never sees it.

The site still accepts results of earlier keys, so the client can change at any time; --end expires them now. Results
that they signed stay valid. After the first key, verify reports unsigned results of the client; --from sets another
time for that, such as after the last spooled job from before the key.

Examples:
  webjobctl client result-key client1
  webjobctl client result-key client1 --public client1.pub --end

Exit codes:
  0  made, or added
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  there is no such client, or the key cannot be read or written`;

export function resultKeyCommand(): Command {
  return new Command('result-key')
    .description('make another result key for a client, or add one that it made')
    .argument('<CLIENT>', 'the client id', parseClientId)
    .option('--public <FILE>', 'add this public key; the private key stays on the client')
    .option('--from <TIME>', 'results from this time on must be signed (default: now)', parseInstant)
    .option('--end', 'expire the earlier keys')
    .option('--out <DIRECTORY>', 'where to write the key (default: CLIENT)')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => change(openContext(command), name, options));
}

function change(context: Context, client: string, options: Options): void {
  if (options.public !== undefined && options.out !== undefined)
    throw new Failure('usage', '--public writes no key, so there is nothing for --out');
  if (!findClients(context).some((row) => row.client === client))
    throw new Failure('failed', `there is no client ${client}`, 'webjobctl client add makes it, with a result key');
  const { publicKey, pem } = options.public === undefined ? makeResultKey() : readPublicResultKey(options.public);
  const { path, key, ended } = withClient(context, client, () => {
    const path = pem === undefined ? undefined : writeResultKey(options.out ?? client, client, pem);
    const key = addResultKey(context, client, publicKey, options.from);
    return { path, key, ended: options.end ? endResultKeys(context, client, key) : [] };
  });
  const verifierKey = formatVerifierKey(client, publicKey);
  const names = ended.map(({ name, id }) => `${name}+${id}`);
  if (context.isJson)
    printJson({ client, file: path ?? null, key: verifierKey, from: key.from.toISOString(), ended: names });
  else printLine(path ?? verifierKey);
  for (const name of names) say(`${name} has expired`);
}
