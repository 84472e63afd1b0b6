// webjobctl sign: keys, signatures beside programs, and whether a client would take them.
import { Command, Option } from 'commander';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { SignFailure } from '../../sign/failure.ts';
import { checkFile, KEY_TYPES, makeKey, readPrivateKey, readPublicKey, signFile } from '../../sign/keys.ts';
import { globalOptions } from '../site/site.ts';

const CODES = `
  2  wrong command line
  4  a key or a file cannot be read, used or written`;

export function signCommand(): Command {
  const command = new Command('sign')
    .description('make keys, sign programs, and check signatures, for clients with DsvVerifySignature=Y')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Example:
  webjobctl sign keygen /root/webjob

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
  for (const make of [keygenCommand, payloadCommand, verifyCommand]) command.addCommand(make());
  return command;
}

function keygenCommand(): Command {
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
  0  made${CODES}`,
    )
    .action((name: string, { type }: { type: (typeof KEY_TYPES)[number] }, command: Command) => {
      translate(() => makeKey(name, type));
      const files = { private: `${name}.key`, public: `${name}.pub` };
      if (globalOptions(command).json) printJson({ ...files, type });
      else for (const file of Object.values(files)) printLine(safeLine(file));
    });
}

function payloadCommand(): Command {
  return new Command('payload')
    .description('sign programs: the signature of each goes into FILE.sig beside it')
    .argument('<file...>', 'what to sign')
    .requiredOption('--key <file>', 'the private key')
    .addHelpText(
      'after',
      `
The server finds the signature there and sends it along. A program that is changed must be signed again.

Example:
  webjobctl sign payload --key /root/webjob.key /var/integrity/profiles/client1/commands/host.sh

Exit codes:
  0  signed${CODES}; files named before it are signed`,
    )
    .action((files: string[], { key }: { key: string }, command: Command) => {
      const privateKey = translate(() => readPrivateKey(key));
      for (const file of files) {
        translate(() => signFile(file, privateKey));
        if (globalOptions(command).json) printJson({ file, signature: `${file}.sig` });
        else printLine(safeLine(`${file}.sig`));
      }
    });
}

function verifyCommand(): Command {
  return new Command('verify')
    .description('check the signatures beside programs, as a client does')
    .argument('<file...>', 'the programs')
    .requiredOption('--key <file>', 'the public key: DsvPublicKeyFile of the clients')
    .addHelpText(
      'after',
      `
Example:
  webjobctl sign verify --key /root/webjob.pub /var/integrity/profiles/client1/commands/host.sh

Exit codes:
  0  every signature is good
  1  one is wrong or missing${CODES}`,
    )
    .action((files: string[], { key }: { key: string }, command: Command) => {
      const publicKey = translate(() => readPublicKey(key));
      for (const file of files) {
        const signature = translate(() => checkFile(file, publicKey));
        if (signature !== 'good') process.exitCode = EXIT_CODES.findings;
        if (globalOptions(command).json) printJson({ file, signature });
        else printLine(safeLine(`${signature.padEnd(8)} ${file}`));
      }
    });
}

/** What webjob-sign calls a failure, in webjobctl's terms. */
function translate<Type>(work: () => Type): Type {
  try {
    return work();
  } catch (error) {
    if (error instanceof SignFailure) throw new Failure('failed', error.message, error.hint);
    throw error;
  }
}
