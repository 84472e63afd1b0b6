// webjobctl sign payload: writes signatures and manifests beside programs.
import { Command, InvalidArgumentError, Option } from 'commander';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { readNoteSigner, readPrivateKey, signFile } from '../../sign/keys.ts';
import { describeManifest, programOf, writeManifest } from '../../sign/manifests.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  key: string;
  keyName?: string;
  client?: string[];
  expires: number;
  notBefore?: Date;
  name?: string;
  serial?: number;
}

const YEAR_SECONDS = 365 * 86_400;

export function payloadCommand(): Command {
  return new Command('payload')
    .description('sign programs: a signature goes into FILE.sig beside each, a manifest into FILE.manifest')
    .argument('<FILE...>', 'the programs to sign')
    .requiredOption('--key <FILE>', 'the private key')
    .option('--key-name <NAME>', 'the name of the key (default: the name in KEY.vkey, or of the file)')
    .option('--client <CLIENT>', 'the clients that may run it: ids or globs, as in web-*; may be repeated', collect)
    .addOption(
      new Option('--expires <DURATION>', 'how long the manifest is valid, as in 90d')
        .argParser(parseDuration)
        .default(YEAR_SECONDS, '365d'),
    )
    .option('--not-before <TIME>', 'when the manifest becomes valid (default: ten minutes ago)', parseInstant)
    .option('--name <NAME>', 'the name that clients request (default: the name of the file)')
    .option('--serial <NUMBER>', 'the serial number (default: the current time)', parseSerial)
    .addHelpText(
      'after',
      `
The server sends both files with the program. A program that is changed must be signed again.

FILE.sig is for clients with DsvVerifySignature=Y. FILE.manifest is for those with DsvVerifyManifest=Y: a signed note that
binds the program to its name, to clients, to a time, and to a serial number, and a client refuses serial numbers lower
than it has seen. A manifest needs an Ed25519 key. Without --client it keeps the clients of the existing manifest, or is
for all; without --expires it is valid for a year. Other signers add their signatures with webjobctl sign add.

Examples:
  webjobctl sign payload --key /root/alice.key --client client1 /var/integrity/profiles/client1/commands/host.sh
  webjobctl sign payload --key /root/alice.key --client 'web-*' --client 'db-*' --expires 90d collect.sh

Exit codes:
  0  signed
  2  wrong command line
  4  a key or a file cannot be read, used or written; files named before it are signed`,
    )
    .action((files: string[], options: Options, command: Command) => signAll(command, files, options));
}

function signAll(command: Command, files: string[], options: Options): void {
  const { key, keyName, client, expires, notBefore, name, serial } = options;
  const privateKey = readPrivateKey(key);
  const hasManifest = privateKey.asymmetricKeyType === 'ed25519';
  const wishes = [keyName, client, notBefore, name, serial];
  if (!hasManifest && (wishes.some((wish) => wish !== undefined) || command.getOptionValueSource('expires') === 'cli'))
    throw new Failure('usage', `${key} cannot sign manifests`, 'webjobctl sign keygen makes an Ed25519 key');
  if (name !== undefined && files.length > 1) throw new Failure('usage', '--name requires a single file');
  const signer = hasManifest ? readNoteSigner(key, privateKey, keyName) : undefined;
  for (const program of files.map(programOf)) {
    // The manifest comes first, so that a program which cannot have one is not left half signed.
    const found =
      signer && writeManifest(program, signer, { name, clients: client, notBefore, lifetime: expires, serial });
    signFile(program, privateKey);
    const written = { signature: `${program}.sig`, ...(found && { manifest: found.path }) };
    if (globalOptions(command).json) printJson({ file: program, ...written, ...(found && describeManifest(found)) });
    else for (const path of Object.values(written)) printLine(safeLine(path));
  }
}

function collect(glob: string, globs: string[] = []): string[] {
  return [...globs, glob];
}

function parseSerial(text: string): number {
  if (!/^(?:0|[1-9][0-9]{0,14})$/.test(text)) throw new InvalidArgumentError('a serial number has at most 15 digits.');
  return Number(text);
}
