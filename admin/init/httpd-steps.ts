// What remains to be done to httpd: as lines to paste, or run one after the other with --apply.
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { errorCode, replaceFile } from '../../cli/files.ts';
import { say } from '../../cli/output.ts';
import { commandOf, type HttpdOptions } from '../site/httpd-control.ts';
import { askProgram } from '../site/programs.ts';
import { isRoot } from '../site/users.ts';
import type { Places } from './places.ts';

export type HttpdStep = { run: string[] } | { include: string; file: string | undefined };

const DEBIAN = '/etc/apache2';

export function planHttpdSteps(places: Places, isTls: boolean, options: HttpdOptions): HttpdStep[] {
  const { httpdConf } = options;
  const { control, file } = commandOf(options);
  const test = { run: [control, ...(file.length > 0 ? [...file, '-t'] : ['configtest'])] };
  const signal = (name: string): HttpdStep => ({
    run: [control, ...(file.length > 0 ? [...file, '-k', name] : [name])],
  });
  const isDebian = places.layout === 'debian' || httpdConf?.startsWith(`${DEBIAN}/`) === true;
  const modules = isDebian ? planModules(isTls) : { steps: [], isMissing: false };
  const site: HttpdStep[] =
    places.layout === 'debian'
      ? [{ run: ['a2enconf', 'webjob'] }]
      : [{ include: `Include ${places.siteFile}`, file: httpdConf }];
  // A module that was not loaded yet takes a restart, mod_cgid starts its daemon with the one after that, and two at once are one.
  const again = modules.isMissing ? [signal('restart'), { run: ['sleep', '3'] }] : [];
  return [...modules.steps, ...site, test, ...again, signal('graceful')];
}

/** Of Debian's httpd, which has its modules as files. */
function planModules(isTls: boolean): { steps: HttpdStep[]; isMissing: boolean } {
  const isEnabled = (name: string): boolean => existsSync(join(DEBIAN, 'mods-enabled', `${name}.load`));
  const modules = [isEnabled('mpm_prefork') ? 'cgi' : 'cgid', ...(isTls ? ['ssl'] : [])];
  return {
    steps: [
      ...(existsSync(DEBIAN) ? [] : [{ run: ['apt-get', 'install', 'apache2', 'apache2-utils'] }]),
      ...modules.map((name) => ({ run: ['a2enmod', name] })),
    ],
    isMissing: !modules.every(isEnabled),
  };
}

/** A line for a shell, or for httpd.conf. */
export function formatHttpdStep(step: HttpdStep): string {
  if ('run' in step) return step.run.join(' ');
  return `echo '${step.include}' >> ${step.file ?? 'httpd.conf'}`;
}

/** Takes the steps. Throws Failure `failed` at the first that fails: httpd then goes on as it was. */
export function takeHttpdSteps(steps: readonly HttpdStep[], options: HttpdOptions): void {
  for (const step of steps) {
    say(formatHttpdStep(step));
    if ('run' in step) runStep(step.run);
    else {
      checkModules(options);
      includeOnce(step.include, step.file);
    }
  }
}

/** Without a module that runs scripts httpd would hand out the script itself. */
function checkModules(options: HttpdOptions): void {
  const { control, file } = commandOf(options);
  const { status, stdout } = askProgram(control, [...file, '-M']);
  if (status !== 0 || /\b(?:cgid?|fcgid|proxy_fcgi)_module\b/.test(stdout)) return;
  throw new Failure('failed', 'httpd has no module that runs scripts', 'LoadModule cgid_module, and run init again');
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
    // It is somebody's own: a link stays a link, and owner and mode are what they were.
    const place = realpathSync(file);
    const text = readFileSync(place, 'utf8');
    if (text.split('\n').some((present) => present.trim() === line)) return;
    const { mode, uid, gid } = statSync(place);
    const owner = isRoot() ? { uid, gid } : undefined;
    replaceFile(place, `${text.replace(/\n*$/, '\n')}\n${line}\n`, { mode: mode & 0o7777, owner });
  } catch (error) {
    throw new Failure('failed', `--httpd-conf: ${file} cannot be changed: ${errorCode(error)}`);
  }
}
