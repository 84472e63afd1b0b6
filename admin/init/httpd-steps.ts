// The remaining steps for httpd: printed as lines to paste, or carried out with --apply.
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { errorCode, replaceFile } from '../../cli/files.ts';
import { say } from '../../cli/output.ts';
import { quote } from '../../cli/shell.ts';
import { commandOf, type HttpdOptions } from '../site/httpd-control.ts';
import { askProgram } from '../site/programs.ts';
import { isRoot } from '../site/users.ts';
import type { Places } from './places.ts';

/**
 * A step: a command, with `why` as the warning before it, or an Include in a file of httpd,
 * undefined when the file is unknown.
 */
export type HttpdStep = { run: string[]; why?: string } | { include: string; file: string | undefined };

const DEBIAN = '/etc/apache2';
/** A graceful restart also loads modules, but does not start mod_cgid's daemon. */
const FULL = 'a full restart, because a module is new: requests in progress are cut off';

export function planHttpdSteps(
  places: Places,
  isTls: boolean,
  options: HttpdOptions,
  more: readonly string[] = [],
): HttpdStep[] {
  const { httpdConf } = options;
  const { control, file } = commandOf(options);
  const test = { run: [control, ...(file.length > 0 ? [...file, '-t'] : ['configtest'])] };
  const signal = (name: string): HttpdStep => ({
    run: [control, ...(file.length > 0 ? [...file, '-k', name] : [name])],
  });
  const isDebian = places.layout === 'debian' || httpdConf?.startsWith(`${DEBIAN}/`) === true;
  const modules = isDebian ? planModules(isTls, more) : { steps: [], isMissing: false };
  const site: HttpdStep[] =
    places.layout === 'debian'
      ? [{ run: ['a2enconf', 'webjob'] }]
      : [{ include: `Include ${places.siteFile}`, file: httpdConf ?? findConfiguration(places, options) }];
  // A new module needs a restart, and mod_cgid starts its daemon at the one after that; two
  // restarts in quick succession would be merged.
  const again = modules.isMissing ? [{ ...signal('restart'), why: FULL }, { run: ['sleep', '3'] }] : [];
  return [...modules.steps, ...site, test, ...again, signal('graceful')];
}

/** Plans modules for Debian's httpd, which has a file for each. */
function planModules(isTls: boolean, more: readonly string[]): { steps: HttpdStep[]; isMissing: boolean } {
  const isEnabled = (name: string): boolean => existsSync(join(DEBIAN, 'mods-enabled', `${name}.load`));
  const modules = [isEnabled('mpm_prefork') ? 'cgi' : 'cgid', ...(isTls ? ['ssl'] : []), ...more];
  return {
    steps: [
      ...(existsSync(DEBIAN) ? [] : [{ run: ['apt-get', 'install', 'apache2', 'apache2-utils'] }]),
      ...modules.map((name) => ({ run: ['a2enmod', name] })),
    ],
    isMissing: !modules.every(isEnabled),
  };
}

/**
 * httpd's configuration file, for a step that can be pasted in any directory: from httpd itself, or
 * from the layout of the article or Debian.
 */
function findConfiguration({ layout }: Places, options: HttpdOptions): string | undefined {
  const stdout = askVersion(commandOf(options).control);
  const [root, file] = ['HTTPD_ROOT', 'SERVER_CONFIG_FILE'].map(
    (name) => new RegExp(`${name}="(.*)"`).exec(stdout)?.[1],
  );
  const usual = layout === 'article' ? ['/usr/local/apache/conf/httpd.conf'] : [];
  const places = [...(file ? [resolve(root ?? '/', file)] : []), ...usual, `${DEBIAN}/apache2.conf`];
  return places.find((place) => existsSync(place)) ?? usual[0];
}

/** The output of `-V`; empty when there is no httpd yet. */
function askVersion(control: string): string {
  try {
    return askProgram(control, ['-V']).stdout;
  } catch {
    return '';
  }
}

/** Formats a step as a shell command that can be pasted in any directory. */
export function formatHttpdStep(step: HttpdStep): string {
  if ('run' in step) return `${step.run.map(quote).join(' ')}${step.why ? `  # ${step.why}` : ''}`;
  const line = quote(step.include);
  if (step.file === undefined) return `# add to what httpd reads, or give --httpd-conf FILE: ${step.include}`;
  return `grep -qxF ${line} ${quote(step.file)} || echo ${line} >> ${quote(step.file)}`;
}

/**
 * Carries out the steps. Throws Failure `failed` at the first that fails; httpd then continues as
 * before.
 */
export function takeHttpdSteps(steps: readonly HttpdStep[], options: HttpdOptions): void {
  for (const [index, step] of steps.entries()) {
    say(formatHttpdStep(step));
    if ('run' in step) runStep(step.run, steps.slice(index));
    else {
      checkModules(options);
      includeOnce(step.include, step.file);
    }
  }
}

/** Without a module that runs scripts, httpd would serve the script's source. */
function checkModules(options: HttpdOptions): void {
  const { control, file } = commandOf(options);
  const { status, stdout } = askProgram(control, [...file, '-M']);
  if (status !== 0 || /\b(?:cgid?|fcgid|proxy_fcgi)_module\b/.test(stdout)) return;
  throw new Failure(
    'failed',
    'httpd has no module that runs scripts',
    'LoadModule cgid_module, restart httpd (graceful is not enough: mod_cgid has a daemon), and run init again',
  );
}

/**
 * Runs a command. If it fails, the hint has every remaining step: another run of init would find
 * new modules enabled and leave out the full restart, without which mod_cgid has no daemon.
 */
function runStep([command = '', ...args]: string[], remaining: readonly HttpdStep[]): void {
  const { status, stdout, stderr } = askProgram(command, args);
  for (const line of `${stdout}${stderr}`.trim().split('\n').filter(Boolean)) say(`  ${line}`);
  if (status === 0) return;
  const commands = remaining.map((step) =>
    'run' in step ? step.run.map(quote).join(' ') : `{ ${formatHttpdStep(step)}; }`,
  );
  throw new Failure('failed', `${command} failed with ${status}`, `correct that, then: ${commands.join(' && ')}`);
}

function includeOnce(line: string, file: string | undefined): void {
  if (file === undefined)
    throw new Failure('usage', '--apply requires the file that includes the site', '--httpd-conf FILE');
  try {
    // The file belongs to the administrator: a link stays a link, and owner and mode are kept.
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
