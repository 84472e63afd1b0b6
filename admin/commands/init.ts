// webjobctl init: makes a site from nothing, in the article's layout, Debian's, or in one
// directory.
import { existsSync, lstatSync, readFileSync, realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, delimiter, dirname, isAbsolute, join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { NAME_PATTERNS } from 'webjob-protocol';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, printLine, say } from '../../cli/output.ts';
import { quote } from '../../cli/shell.ts';
import { Witness } from '../../evidence/witness.ts';
import { formatCompletion } from '../completion/scripts.ts';
import { describeCommands } from '../completion/tree.ts';
import { applySteps } from '../init/apply.ts';
import { compareWishes, type Step } from '../init/compare.ts';
import { type Completions, planDocuments } from '../init/documents.ts';
import { formatHttpdStep, planHttpdSteps, takeHttpdSteps } from '../init/httpd-steps.ts';
import { findLostSettings } from '../init/lost-settings.ts';
import { findPlaces, type Places } from '../init/places.ts';
import { planScript, planSite } from '../init/plan.ts';
import { describeViewSteps, type WantedView } from '../init/view.ts';
import { makeServerCertificate, openAuthority } from '../site/authority.ts';
import type { HttpdOptions } from '../site/httpd-control.ts';
import { findNode, isInCheckout } from '../site/interpreter.ts';
import { findScript, isPackaged, shippedManuals } from '../site/shipped.ts';
import { globalOptions } from '../site/site.ts';
import { findGroup, findGroupName, findUser, findUserName, findWebUser, isRoot, type User } from '../site/users.ts';

interface Options extends HttpdOptions {
  prefix: string;
  base?: string;
  serverId: string;
  tls?: true;
  certificates?: true;
  passwords?: true;
  private?: string;
  view?: true;
  viewUser?: string;
  serverName?: string;
  tlsPort: number;
  webUser?: string;
  node?: string;
  cgi?: string;
  root?: string;
  dryRun?: true;
  force?: true;
  apply?: true;
}

const EXPLANATION = `
Makes the directories, nph-webjob.cfg, the snippet for httpd, .htaccess, the user file, the logs, a file for logrotate
and the script, with the owners and modes of the 2004 article: uploads and logs belong to the web user, everything else
to root. Man pages and completions go below /usr/local/share (for fish /etc/fish/completions), or, with a directory as
--prefix, below its share. From the Debian package it makes a link to the packaged script, and no man pages.

Existing files that are the same are kept. If any file differs, init changes nothing, unless --force moves the old one
aside as NAME.TIME.bak: beside the new one, or, for files that httpd serves, man pages and completions, into the
directory "replaced" beside nph-webjob.cfg. It lists your settings that the new nph-webjob.cfg does not have.

Then init prints the remaining steps for httpd; --apply carries them out.

Without root, --prefix DIRECTORY makes a private site, for an httpd that you run yourself.

Examples:
  webjobctl init --prefix debian --tls --dry-run
  webjobctl init --prefix debian --tls --apply
  webjobctl init --prefix /srv/webjob --httpd-conf /usr/local/apache/conf/httpd.conf --apply

Exit codes:
  0  made, or everything existed
  1  with --dry-run: an existing file differs
  2  wrong command line
  4  refused, or something could not be made`;

export function initCommand(): Command {
  return new Command('init')
    .description('make a site: directories, settings, snippets, the script, with the right owners and modes')
    .option('--prefix <LAYOUT>', 'article, debian, or a directory for everything', parsePrefix, 'article')
    .option('--base <DIRECTORY>', 'BaseDirectory, which contains the uploads', parsePath)
    .option(
      '--server-id <SERVER>',
      'ServerId, which must differ on every server that shares the locker',
      parseServerId,
      'server_1',
    )
    .option('--tls', 'make a TLS virtual host, with a new certificate if there is none')
    .option('--certificates', 'clients authenticate by certificate, without a password (with --tls)')
    .option('--passwords', 'clients authenticate by certificate or by password (with --certificates)')
    .option('--server-name <NAME>', 'name of the TLS virtual host (default: the host name)', parseServerName)
    .option('--tls-port <PORT>', 'its port', parsePort, 443)
    .option(
      '--private <GROUP>',
      'uploads and logs are readable for this group only (default: for everyone on this machine)',
      parseGroup,
    )
    .option('--view', 'also set up webjob-view')
    .option(
      '--view-user <USER>',
      'the user of its process, which cannot write to the locker (default: webjob-view, if it exists)',
    )
    .option('--web-user <USER>', 'the user that runs scripts (default: the usual one)')
    .option(
      '--node <FILE>',
      'the Node that runs the script (default: the first outside checkouts that the web user can start)',
    )
    .option('--cgi <FILE>', 'nph-webjob.cgi (default: the one beside webjobctl)')
    .option('--root <DIRECTORY>', 'make everything below this directory, as for a package or an image')
    .option('--dry-run', 'show everything and change nothing')
    .option('--force', 'replace files that differ; keep the old ones as backups')
    .option('--apply', 'configure and restart httpd as well')
    .option('--httpd <PROGRAM>', 'httpd or apachectl for these steps (default: apachectl)')
    .option('--httpd-conf <FILE>', 'the httpd.conf that includes the site', parsePath)
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) =>
      init(options, globalOptions(command).json === true, command.parent ?? command),
    );
}

function init(options: Options, isJson: boolean, program: Command): void {
  checkOptions(options);
  process.umask(0o022);
  const places = findPlaces(options.prefix, options.base);
  const webUser = isRoot() ? findWebUser(options.webUser) : undefined;
  const serverName = options.tls ? (options.serverName ?? hostname()) : undefined;
  const node = findNode(options.node, webUser);
  const script = findScript(options.cgi);
  // The package's script has its own interpreter line, and a copy would miss its upgrades.
  const isLink = isPackaged(script) && options.node === undefined;
  const viewUser = options.view && isRoot() ? findViewUser(options.viewUser) : undefined;
  const view = options.view ? planViewProgram(viewUser?.name, webUser?.name, node) : undefined;
  const wishes = planSite({
    places,
    serverName,
    serverId: options.serverId,
    tlsPort: options.tlsPort,
    certificates: options.certificates === true,
    passwords: options.passwords === true,
    hasWitness: isRoot(),
    isPrivate: options.private !== undefined,
    logOwner: webUser && [webUser.name, options.private ?? 'root'],
    script: isLink ? { target: script } : { text: readFileSync(script, 'utf8'), node },
    view,
    documents: isPackaged(script) ? [] : planDocuments(places, shippedManuals(), completionsOf(program)),
  });
  const analystsGid = options.private === undefined || !isRoot() ? undefined : findGroup(options.private);
  const steps = compareWishes(wishes, { root: options.root ?? '/', webUser, viewUser, analystsGid });
  const show = openReport(isJson);
  const lost = options.force ? findLostSettings(steps) : undefined;
  const differing = steps.filter(({ state }) => state === 'differs');
  const httpdSteps = planHttpdSteps(places, options.tls === true, options, view ? modulesOf(view) : []);
  if (options.dryRun) {
    for (const step of steps) show(step, step.state);
    if (differing.length > 0 && !options.force) process.exitCode = EXIT_CODES.findings;
  } else {
    if (differing.length > 0 && !options.force) refuse(differing);
    for (const step of steps) if (step.state === 'keep') show(step, 'kept');
    const makers = {
      'server certificate': (folder: string) => makeServerCertificate(folder, serverName ?? ''),
      'client authority': (folder: string) => void openAuthority(folder),
      witness: (folder: string) => beginWitness(folder, steps),
    };
    const below = (path: string): string => join(options.root ?? '/', path);
    const directories = [places.cgiDirectory, places.shareDirectory, places.fishDirectory].map(below);
    const served = { directories, replacedDirectory: join(below(places.etcDirectory), 'replaced') };
    applySteps(steps, makers, served, (step, backup) =>
      show(step, step.state === 'make' ? 'made' : 'replaced', backup),
    );
  }
  if (lost) sayLost(lost, options.dryRun === true);
  if (options.apply && !options.dryRun) takeHttpdSteps(httpdSteps, options);
  else for (const step of httpdSteps) isJson ? printJson(step) : printLine(formatHttpdStep(step));
  if (isInCheckout(node)) sayInCheckout(node);
  sayNext(options, places, view);
}

/** Prints the commands that remain to be run by hand. */
function sayNext(options: Options, places: Places, view: WantedView | undefined): void {
  if (options.private === undefined)
    say('every user of this machine can read uploads and logs: --private GROUP restricts them to a group');
  for (const step of view ? describeViewSteps(places, view, quote) : []) say(`for readers: ${step}`);
  const config = resolve(options.root ?? '/', `.${places.etcDirectory}`, 'nph-webjob.cfg');
  say(
    `next: ${nameProgram()} --config ${quote(config)} client add client1 ${options.certificates ? '--cert' : '--generate'}`,
  );
}

/** Warns before httpd is restarted: the site continues with the settings of the new file. */
function sayLost({ file, lines }: { file: string; lines: string[] }, isDryRun: boolean): void {
  const verb = isDryRun ? 'would remove' : 'removed';
  say(`warning: --force ${verb} these settings from ${file}: ${lines.join(', ')}`);
  say(isDryRun ? 'hint: add them to the new file again' : 'hint: add them again; the .bak file has the old lines');
}

/** The given user, or the usual one; undefined without one, and then httpd starts the view. */
function findViewUser(given: string | undefined): User | undefined {
  const user = findUser(given ?? 'webjob-view');
  if (user || given === undefined) return user;
  throw new Failure('failed', `--view-user: there is no user ${given}`, `useradd --system --no-create-home ${given}`);
}

function planViewProgram(user: string | undefined, webUser: string | undefined, node: string): WantedView {
  const program = findScript(undefined, 'webjob-view.cgi');
  const isOwn = isPackaged(program);
  const script = planScript(isOwn ? { target: program } : { text: readFileSync(program, 'utf8'), node });
  const webjobctl = realpathSync(process.argv[1] ?? '');
  return { script, user, webUser: webUser ?? '', webjobctl: `${node} ${webjobctl}`, isPackaged: isOwn };
}

/** The modules of httpd that the view needs. */
function modulesOf({ user }: WantedView): string[] {
  return user === undefined ? ['headers'] : ['headers', 'proxy', 'proxy_fcgi', 'authz_groupfile'];
}

/** Explains the choice of Node, which was given by --node or is the only suitable one. */
function sayInCheckout(node: string): void {
  say(
    `warning: the script runs with ${node}, which is part of a checkout: when that is moved, updated or removed, every request fails`,
  );
  say(`hint: install Node for the whole machine, then add to this command: --node ${'$'}(command -v node) --force`);
}

/**
 * The program's name for a command that can be pasted in any directory: its path when PATH does not
 * lead to webjobctl.
 */
function nameProgram(): string {
  const folders = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
  const isInPath = folders.some((folder) => existsSync(join(folder, 'webjobctl')));
  return isInPath ? 'webjobctl' : quote(resolve(process.argv[1] ?? 'webjobctl'));
}

function completionsOf(program: Command): Completions {
  const rows = describeCommands(program);
  const [bash, zsh, fish] = (['bash', 'zsh', 'fish'] as const).map((shell) => formatCompletion(shell, rows));
  return { bash: bash ?? '', zsh: zsh ?? '', fish: fish ?? '' };
}

/** Stores the custody record as root sees it at the beginning. */
function beginWitness(folder: string, steps: readonly Step[]): void {
  const custody = steps.find(({ first }) => first !== undefined)?.place ?? '';
  new Witness(folder).update(dirname(custody), [
    { file: basename(custody), size: lstatSync(custody).size, newest: Date.now() },
  ]);
}

function checkOptions(options: Options): void {
  if (options.certificates && !options.tls) throw new Failure('usage', '--certificates requires --tls');
  if (options.viewUser !== undefined && !options.view) throw new Failure('usage', '--view-user requires --view');
  if (options.passwords && !options.certificates) throw new Failure('usage', '--passwords requires --certificates');
  if (options.root && options.apply)
    throw new Failure('usage', '--apply cannot be combined with --root: there is no httpd below it');
  if (!isRoot() && !options.root && !options.dryRun && findPlaces(options.prefix, undefined).layout !== 'folder')
    throw new Failure(
      'failed',
      `init --prefix ${options.prefix} requires root`,
      '--prefix DIRECTORY makes a private site; --dry-run shows everything',
    );
  if (options.apply && !options.httpdConf && findPlaces(options.prefix, undefined).layout !== 'debian')
    throw new Failure('usage', '--apply requires the file that includes the site', '--httpd-conf FILE');
}

function openReport(isJson: boolean): (step: Step, state: string, backup?: string) => void {
  return (step, state, backup) => {
    if (isJson) printJson(stepAsJson(step, state, backup));
    else printLine(formatStep(step, state, backup));
  };
}

function stepAsJson(step: Step, state: string, backup?: string): object {
  const { kind, place, mode, why } = step;
  const [owner, group] = step.ownership ? [step.owner, step.group] : ['self', 'self'];
  return { path: place, kind, mode: formatMode(mode), owner, group, state, why, ...(backup && { backup }) };
}

function formatStep({ kind, path, target, mode, ownership, why }: Step, state: string, backup?: string): string {
  const owners = ownership ? `${findUserName(ownership.uid)}:${findGroupName(ownership.gid)}` : 'self:self';
  const notes = [why.length > 0 ? `(${why.join(', ')})` : '', backup ? `the old one is ${backup}` : ''];
  const name = { folder: join(path, '/'), link: `${path} -> ${target}`, file: path }[kind];
  // The mode of a link, 0777, means nothing.
  const access = kind === 'link' ? 'link' : formatMode(mode);
  return `${state.padEnd(8)} ${access} ${owners.padEnd(13)} ${name} ${notes.join(' ')}`.trimEnd();
}

const formatMode = (mode: number): string => mode.toString(8).padStart(4, '0');

function refuse(differing: readonly Step[]): never {
  const list = differing.map(({ place, why }) => `  ${place} (${why.join(', ')})`).join('\n');
  throw new Failure(
    'failed',
    `existing files differ; nothing was changed:\n${list}`,
    '--force moves each aside as NAME.TIME.bak and writes the new one',
  );
}

/**
 * A path that is valid in every file that contains it: httpd's configuration, nph-webjob.cfg and
 * shell commands.
 */
function parsePath(text: string): string {
  const path = resolve(text);
  if (/^\/[A-Za-z0-9_./:+@=,-]+$/.test(path)) return path;
  throw new InvalidArgumentError('a path of letters, digits and _ . / : + @ = , - is needed.');
}

function parsePrefix(text: string): string {
  return text === 'article' || text === 'debian' ? text : parsePath(text);
}

function parseServerId(text: string): string {
  if (new RegExp(`^${NAME_PATTERNS.serverId}$`).test(text)) return text;
  throw new InvalidArgumentError('a ServerId is 1 to 64 letters, digits and _ . -.');
}

function parseGroup(text: string): string {
  if (/^[a-z_][a-z0-9_-]{0,31}$/.test(text)) return text;
  throw new InvalidArgumentError('the name of a group is needed.');
}

function parseServerName(text: string): string {
  if (/^(?=.{1,253}$)[A-Za-z0-9][A-Za-z0-9.-]*$|^[0-9a-f:]{2,39}$/i.test(text)) return text;
  throw new InvalidArgumentError('a host name or an address is needed.');
}

function parsePort(text: string): number {
  if (/^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65_535) return Number(text);
  throw new InvalidArgumentError('a port is 1 to 65535.');
}
