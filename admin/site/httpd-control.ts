// The httpd that is told to test its configuration and to start again.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { askProgram } from './programs.ts';

export interface HttpdOptions {
  /** httpd or apachectl; else apachectl. */
  httpd?: string;
  httpdConf?: string;
}

export function addHttpdOptions(command: Command): Command {
  return command
    .option('--httpd <program>', 'httpd or apachectl for that (else apachectl)')
    .option('--httpd-conf <file>', 'the configuration that httpd reads, where it is not the usual one');
}

export function commandOf({ httpd = 'apachectl', httpdConf }: HttpdOptions): { control: string; file: string[] } {
  // A path that is relative would mean another program where the command is pasted.
  return {
    control: httpd.includes('/') ? resolve(httpd) : httpd,
    file: httpdConf === undefined ? [] : ['-f', httpdConf],
  };
}

/** The command that has httpd read its files again without a request being lost. */
export function reloadCommand(options: HttpdOptions): string[] {
  const { control, file } = commandOf(options);
  return [control, ...(file.length > 0 ? [...file, '-k', 'graceful'] : ['graceful'])];
}

/** Throws Failure `failed` with what httpd said. */
export function reloadHttpd(options: HttpdOptions): void {
  const [command = '', ...args] = reloadCommand(options);
  const { status, stdout, stderr } = askProgram(command, args);
  if (status === 0) return;
  const said = `${stdout}${stderr}`.trim().split('\n').slice(-3).join(' ');
  throw new Failure('failed', `httpd was not reloaded: ${said}`, `fix that, then ${[command, ...args].join(' ')}`);
}
