// webjobctl sign keygen: makes a key pair.
import { Command, Option } from 'commander';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { KEY_TYPES, makeKey } from '../../sign/keys.ts';
import { globalOptions } from '../site/site.ts';

interface Options {
  type: (typeof KEY_TYPES)[number];
  keyName?: string;
}

export function keygenCommand(): Command {
  return new Command('keygen')
    .description('make NAME.key, to sign with, and NAME.pub and NAME.vkey, for the clients')
    .argument('<NAME>', 'the path of the files, without .key, .pub and .vkey')
    .addOption(new Option('--type <TYPE>', 'the kind of key').choices(KEY_TYPES).default('ed25519'))
    .option('--key-name <NAME>', 'the name of the key, which its signatures contain (default: the name of its files)')
    .addHelpText(
      'after',
      `
NAME.key stays where programs are signed and never goes to a server. Clients get NAME.pub as DsvPublicKeyFile. NAME.vkey is
the verifier key of its manifests, one line, which webjobctl sign trust add puts into their DsvTrustedKeysFile; only an
Ed25519 key has one. No file is ever overwritten.

Example:
  webjobctl sign keygen /root/alice --key-name site.example/alice

Exit codes:
  0  made
  2  wrong command line
  4  a key or a file cannot be read, used or written`,
    )
    .action((name: string, { type, keyName }: Options, command: Command) => {
      const verifierKey = makeKey(name, type, keyName);
      const verifier = verifierKey === undefined ? {} : { verifier: `${name}.vkey` };
      const files = { private: `${name}.key`, public: `${name}.pub`, ...verifier };
      if (globalOptions(command).json) printJson({ ...files, type, ...(verifierKey !== undefined && { verifierKey }) });
      else for (const file of Object.values(files)) printLine(safeLine(file));
    });
}
