// What remains to be done to httpd: as lines to paste, or run one after the other with --apply.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../failure.ts';
import { errorCode, replaceFile } from '../files.ts';
import { say } from '../output.ts';
import { askProgram } from '../programs.ts';
import type { Places } from './places.ts';

export type HttpdStep = { run: string[] } | { include: string; file: string | undefined };

export interface HttpdOptions {
  /** httpd or apachectl; else apachectl. */
  httpd?: string;
  httpdConf?: string;
}

const DEBIAN = '/etc/apache2';

export function planHttpdSteps(places: Places, isTls: boolean, { httpd, httpdConf }: HttpdOptions): HttpdStep[] {
  const control = httpd ?? 'apachectl';
  const file = httpdConf === undefined ? [] : ['-f', httpdConf];
  const test = { run: [control, ...(file.length > 0 ? [...file, '-t'] : ['configtest'])] };
  const signal = (name: string): HttpdStep => ({
    run: [control, ...(file.length > 0 ? [...file, '-k', name] : [name])],
  });
  if (places.layout !== 'debian')
    return [{ include: `Include ${places.siteFile}`, file: httpdConf }, test, signal('graceful')];
  const isPrefork = existsSync(join(DEBIAN, 'mods-enabled', 'mpm_prefork.load'));
  const modules = [isPrefork ? 'cgi' : 'cgid', ...(isTls ? ['ssl'] : [])];
  const missing = modules.filter((name) => !existsSync(join(DEBIAN, 'mods-enabled', `${name}.load`)));
  return [
    ...(existsSync(DEBIAN) ? [] : [{ run: ['apt-get', 'install', 'apache2', 'apache2-utils'] }]),
    ...modules.map((name) => ({ run: ['a2enmod', name] })),
    { run: ['a2enconf', 'webjob'] },
    test,
    // A module that was not loaded yet takes a restart.
    signal(missing.length > 0 ? 'restart' : 'graceful'),
  ];
}

/** A line for a shell, or for httpd.conf. */
export function formatHttpdStep(step: HttpdStep): string {
  if ('run' in step) return step.run.join(' ');
  return `echo '${step.include}' >> ${step.file ?? 'httpd.conf'}`;
}

/** Takes the steps. Throws Failure `failed` at the first that fails: httpd then goes on as it was. */
export function takeHttpdSteps(steps: readonly HttpdStep[]): void {
  for (const step of steps) {
    say(formatHttpdStep(step));
    if ('run' in step) runStep(step.run);
    else includeOnce(step.include, step.file);
  }
}

function runStep([command = '', ...args]: string[]): void {
  const { status, stdout, stderr } = askProgram(command, args);
  for (const line of `${stdout}${stderr}`.trim().split('\n').filter(Boolean)) say(`  ${line}`);
  if (status !== 0) throw new Failure('failed', `${command} failed with ${status}`, 'mend that, and run init again');
}

function includeOnce(line: string, file: string | undefined): void {
  if (file === undefined)
    throw new Failure('usage', '--apply needs to know which file to add the Include to', '--httpd-conf FILE');
  try {
    const text = readFileSync(file, 'utf8');
    if (text.split('\n').some((present) => present.trim() === line)) return;
    replaceFile(file, `${text.replace(/\n*$/, '\n')}\n${line}\n`, { mode: 0o644 });
  } catch (error) {
    throw new Failure('failed', `--httpd-conf: ${file} cannot be changed: ${errorCode(error)}`);
  }
}
