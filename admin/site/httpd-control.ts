// Tells httpd to test its configuration, and to reload.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { askProgram } from './programs.ts';

export interface HttpdOptions {
  /** httpd or apachectl; by default apachectl. */
  httpd?: string;
  httpdConf?: string;
}

export function addHttpdOptions(command: Command): Command {
  return command
    .option('--httpd <PROGRAM>', 'the httpd or apachectl to run (default: apachectl)')
    .option('--httpd-conf <FILE>', 'the configuration that httpd reads, if it is not the default');
}

export function commandOf({ httpd = 'apachectl', httpdConf }: HttpdOptions): { control: string; file: string[] } {
  // A relative path could mean another program where the command is pasted.
  return {
    control: httpd.includes('/') ? resolve(httpd) : httpd,
    file: httpdConf === undefined ? [] : ['-f', httpdConf],
  };
}

/** The command that makes httpd reload its configuration without losing a request. */
export function reloadCommand(options: HttpdOptions): string[] {
  const { control, file } = commandOf(options);
  return [control, ...(file.length > 0 ? [...file, '-k', 'graceful'] : ['graceful'])];
}

/** Reloads httpd. Throws Failure `failed` with httpd's message. */
export function reloadHttpd(options: HttpdOptions): void {
  const [command = '', ...args] = reloadCommand(options);
  const { status, stdout, stderr } = askProgram(command, args);
  if (status === 0) return;
  const said = `${stdout}${stderr}`.trim().split('\n').slice(-3).join(' ');
  throw new Failure('failed', `httpd was not reloaded: ${said}`, `fix that, then ${[command, ...args].join(' ')}`);
}
