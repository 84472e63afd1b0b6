// webjobctl client passwd: replaces the password of a client that has one.
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { findPasswordChange } from '../clients/client-kit.ts';
import { removeNote, withClient } from '../clients/client-lock.ts';
import { type Context, type ContextOptions, openContext, parseClientId, userFileOption } from '../clients/context.ts';
import { readUserFile, setUser } from '../clients/userfile.ts';
import { choosePassword } from './client-add.ts';

interface Options extends ContextOptions {
  passwordFile?: string;
  generate?: true;
  out?: string;
}

const EXPLANATION = `
Changes the password in the user file and in the webjob.conf of the directory CLIENT; without one, the file
CLIENT/URLPassword gets the line that webjob.conf needs. httpd reads the user file at every request.

Example:
  webjobctl client passwd client1 --generate

Exit codes:
  0  changed
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  there is no such client, or something could not be written`;

export function passwdCommand(): Command {
  return new Command('passwd')
    .description("change a client's password")
    .argument('<CLIENT>', 'the client id', parseClientId)
    .option('--password-file <FILE>', "the password is this file's first line; - for stdin")
    .option('--generate', 'make a password, which is stored only in webjob.conf')
    .option('--out <DIRECTORY>', 'where webjob.conf is (default: CLIENT)')
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => change(openContext(command), name, options));
}

function change(context: Context, client: string, options: Options): void {
  const password = choosePassword(options);
  if (password === undefined) throw new Failure('usage', 'use one of --password-file and --generate');
  const folder = options.out ?? client;
  const conf = withClient(context, client, () => {
    if (!readUserFile(context.userFile).some(({ name }) => name === client))
      throw new Failure('failed', `${client} has no password`, 'webjobctl client add gives it one');
    const writeConf = findPasswordChange(folder, client, password) ?? (() => writeLine(folder, password));
    const written = writeConf();
    setUser(context.userFile, client, password);
    removeNote(context, client);
    return written;
  });
  if (context.isJson) printJson({ client, conf });
  else printLine(conf);
}

/** Writes the password line for webjob.conf to a file, replacing an earlier one. */
function writeLine(folder: string, password: string): string {
  const path = join(resolve(folder), 'URLPassword');
  try {
    removeUnfinished(path);
    replaceFile(path, Buffer.from(`URLPassword=${password}\n`, 'latin1'), { mode: 0o600 });
  } catch (error) {
    throw new Failure(
      'failed',
      `${path} cannot be written: ${errorCode(error)}`,
      'choose an existing directory: --out',
    );
  }
  return path;
}
