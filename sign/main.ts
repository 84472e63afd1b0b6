// The webjob-sign command line.

import { Command, Option } from 'commander';
import { EXIT_CODES, Failure } from '../cli/failure.ts';
import { parseWords, startProgram } from '../cli/program.ts';

import { KEY_TYPES, makeKey, readPrivateKey, signFile } from './keys.ts';

declare const WEBJOB_VERSION: string;

const EXPLANATION = `
--make-key writes NAME.key, which stays where programs are signed and never goes to a server, and NAME.pub, which every
client gets as DsvPublicKeyFile. --key writes the signature of every file into FILE.sig beside it, where the server looks
for it. A file that is changed must be signed again.

Examples:
  webjob-sign --make-key /root/webjob
  webjob-sign --key /root/webjob.key /integrity/profiles/client1/commands/host.sh

Exit codes:
  0  done
  2  wrong command line
  4  a key cannot be made, read or used, or a file cannot be signed; files named before it are signed
  70 an error that webjob-sign did not expect: a bug`;

interface Options {
  makeKey?: string;
  type: (typeof KEY_TYPES)[number];
  key?: string;
}

async function main(argv: string[]): Promise<number> {
  const command = new Command('webjob-sign')
    .usage('{--make-key NAME [--type TYPE] | --key FILE FILE...}')
    .description('Sign programs, so that clients with DsvVerifySignature=Y run no others.')
    .option('--make-key <NAME>', 'make the key NAME.key and its public half NAME.pub')
    .addOption(new Option('--type <TYPE>', 'the kind of key to make').choices(KEY_TYPES).default('ed25519'))
    .option('--key <FILE>', 'sign with this private key')
    .version(WEBJOB_VERSION, '-v, --version', 'print the version')
    .helpOption('--help', 'print this help')
    .argument('[FILE...]', 'the programs to sign')
    .addHelpText('after', EXPLANATION);
  await parseWords(command, argv);
  const { makeKey: name, type, key } = command.opts<Options>();
  const files = command.args;
  if ((name === undefined) === (key === undefined)) throw usage('use one of --make-key and --key');
  if (name !== undefined) {
    if (files.length > 0) throw usage('--make-key takes no files');
    makeKey(name, type);
    return EXIT_CODES.ok;
  }
  if (files.length === 0) throw usage('--key requires files to sign');
  const privateKey = readPrivateKey(key ?? '');
  for (const file of files) signFile(file, privateKey);
  return EXIT_CODES.ok;
}

function usage(message: string): Failure {
  return new Failure('usage', message, 'webjob-sign --help');
}

startProgram('webjob-sign', EXIT_CODES, () => main(process.argv.slice(2)));
