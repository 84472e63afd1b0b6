// webjobctl sign keygen: a pair of keys.
import { Command, Option } from 'commander';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { KEY_TYPES, makeKey } from '../../sign/keys.ts';
import { globalOptions } from '../site/site.ts';
export function keygenCommand(): Command {
  return new Command('keygen')
    .description('make NAME.key, to sign with, and NAME.pub, for the clients')
    .argument('<name>', 'the files without .key and .pub')
    .addOption(new Option('--type <type>', 'the kind of key').choices(KEY_TYPES).default('ed25519'))
    .addHelpText(
      'after',
      `
NAME.key stays where programs are signed and never goes to a server. Every client gets NAME.pub as DsvPublicKeyFile.
Neither is ever written over another file.

Example:
  webjobctl sign keygen /root/webjob

Exit codes:
  0  made
  2  wrong command line
  4  a key or a file cannot be read, used or written`,
    )
    .action((name: string, { type }: { type: (typeof KEY_TYPES)[number] }, command: Command) => {
      makeKey(name, type);
      const files = { private: `${name}.key`, public: `${name}.pub` };
      if (globalOptions(command).json) printJson({ ...files, type });
      else for (const file of Object.values(files)) printLine(safeLine(file));
    });
}
