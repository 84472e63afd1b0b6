// Checks nph-webjob.cgi itself: its name, owner and mode, its interpreter, and how long it takes.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { askVersion, findNode, isNewEnough } from '../site/interpreter.ts';
import { findScript } from '../site/shipped.ts';
import { canBecome, isRoot, mayAccess, type User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { findLineProblem, readFirstLine } from './firstline.ts';
import { findMount, formatOpening, formatRemount } from './trial.ts';
import { MAX_SCRIPT_BYTES, SCRIPT_MARK } from './ways.ts';

const TIME_LIMIT_MS = 10_000;
/**
 * The names at the end of clients' URLs: the built script, or a link to the launcher of an
 * installation elsewhere.
 */
const NAMES = ['nph-webjob.cgi', 'nph-webjob'];

/** Checks the scripts in `folder`, the directory that ScriptAlias leads to. */
export function checkScripts(folder: string, user: User): Finding[] {
  let files: string[];
  try {
    files = readdirSync(folder).filter((name) => !name.endsWith('.bak') && !name.endsWith('.cjs'));
  } catch (failure) {
    const make = `mkdir -p -m 755 ${quote(folder)} && ${formatInstall(folder, user)}`;
    return [error(`the directory of the script cannot be read: ${errorCode(failure)}`, folder, make)];
  }
  const names = files.filter((name) => /webjob/i.test(name));
  const found = names.length > 0 ? names : files.filter((name) => isScript(join(folder, name)));
  if (found.length === 0)
    return [error('the directory contains no script', folder, formatInstall(folder, user)), ...checkOld(folder)];
  const [first = ''] = found;
  const renamed =
    !found.some((name) => NAMES.includes(name)) && first.startsWith('nph-')
      ? [error(`clients ask for ${NAMES[0]}, and the script is called ${first}`, folder, formatRename(folder, first))]
      : [];
  return [...renamed, ...found.flatMap((name) => checkScript(join(folder, name), user)), ...checkOld(folder)];
}

function isScript(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  return (
    stats?.isFile() === true && stats.size <= MAX_SCRIPT_BYTES && readFileSync(path, 'latin1').includes(SCRIPT_MARK)
  );
}

const formatRename = (folder: string, name: string): string =>
  `mv ${quote(join(folder, name))} ${quote(join(folder, NAMES[0] ?? ''))}`;

/** The command that installs the script beside webjobctl, with a Node in its first line. */
function formatInstall(folder: string, user: User): string {
  const target = join(folder, NAMES[0] ?? '');
  const node = findNodeFor(user);
  const place = node === undefined ? '' : ` && ${setFirstLine(target, '#!', node)}`;
  return `install -m 755 ${quote(findShippedScript() ?? 'dist/nph-webjob.cgi')} ${quote(target)}${place}`;
}

/** The script beside webjobctl; undefined when there is none: then the finding has no command. */
function findShippedScript(): string | undefined {
  try {
    return findScript(undefined);
  } catch {
    return undefined;
  }
}

function findNodeFor(user: User): string | undefined {
  try {
    return findNode(undefined, user);
  } catch {
    return undefined;
  }
}

function checkScript(link: string, user: User): Finding[] {
  const findings: Finding[] = [];
  const name = basename(link);
  if (!name.startsWith('nph-')) {
    const isBeside = NAMES.some((one) => existsSync(join(dirname(link), one)));
    const mend = isBeside ? `rm ${quote(link)}` : formatRename(dirname(link), name);
    findings.push(error('httpd does not treat it as an nph script: its name does not begin with nph-', link, mend));
  }
  try {
    const path = realpathSync(link);
    if (!mayAccess(user, path, 'run') || !mayAccess(user, path, 'read'))
      return [
        ...findings,
        error(`${user.name} cannot run the script`, path, formatOpening(user, path, `chmod 755 ${quote(path)}`)),
      ];
    for (const place of [path, dirname(path)]) {
      if (user.uid !== process.getuid?.() && mayAccess(user, place, 'write'))
        findings.push(
          error(
            `${user.name} can change what httpd runs`,
            place,
            `chown 0:0 ${quote(place)} && chmod 755 ${quote(place)}`,
          ),
        );
    }
    return [...findings, ...checkInterpreter(link, path, user)];
  } catch (failure) {
    return [
      ...findings,
      error(`the script cannot be read: ${errorCode(failure)}`, link, formatInstall(dirname(link), user)),
    ];
  }
}

function checkInterpreter(link: string, path: string, user: User): Finding[] {
  const line = readFirstLine(path);
  const problem = findLineProblem(line, path);
  if (problem) return [error(`httpd cannot run the script: ${problem.what}`, path, problem.mend)];
  const [, interpreter, argument] = /^#!\s*(\/\S+)(?:\s+(\S+))?\s*$/.exec(line) ?? [];
  const own = findNodeFor(user);
  const mend =
    own === undefined
      ? 'install a Node that the web user can start, and run this again'
      : setFirstLine(path, line, own);
  if (interpreter === undefined) return [error('the first line of the script names no interpreter', path, mend)];
  if (!existsSync(interpreter))
    return [error(`the interpreter of the script does not exist: ${interpreter}`, path, mend)];
  const isLookedUp = basename(interpreter) === 'env';
  const node = isLookedUp ? findInPath(argument ?? '') : interpreter;
  const findings = isLookedUp
    ? [warning("the Node of the script is looked up in httpd's PATH, which may differ from yours", path, mend)]
    : [];
  const version = node === undefined ? undefined : askVersion(node);
  if (node === undefined || version === undefined)
    return [...findings, error(`the interpreter of the script is not Node: ${line}`, path, mend)];
  if (!isNewEnough(version)) return [...findings, error(`the Node of the script is too old: ${version}`, node, mend)];
  if (!mayAccess(user, realpathSync(node), 'run'))
    return [...findings, error(`${user.name} cannot run the Node of the script`, node, mend)];
  return [...findings, tryScript(link, { path: node, isLookedUp, version }, user)];
}

/**
 * A command that sets the first line of a script to this Node, replacing one that begins with `#!`.
 */
function setFirstLine(path: string, line: string, node: string): string {
  return `sed -i ${quote(line.startsWith('#!') ? `1s|.*|#!${node}|` : `1i #!${node}`)} ${quote(path)}`;
}

/** An earlier version of init renamed the old script here, where httpd still runs it. */
function checkOld(folder: string): Finding[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.bak'))
    .map((name) => join(folder, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
    .map((path) => warning('clients can still run a script that an earlier init replaced', path, `rm ${quote(path)}`));
}

function findInPath(name: string): string | undefined {
  const places = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  return places
    .map((folder) => join(folder, name))
    .find((place) => statSync(place, { throwIfNoEntry: false })?.isFile());
}

interface ScriptNode {
  path: string;
  /** Whether env(1) looks Node up in httpd's PATH. */
  isLookedUp: boolean;
  version: string;
}

/**
 * Runs the script as httpd does, with its own settings and a request that it always refuses. To
 * httpd, a script that the kernel cannot start merely gives no answer.
 */
function tryScript(link: string, node: ScriptNode, user: User): Finding {
  const folder = mkdtempSync(join(tmpdir(), 'webjobctl-'));
  try {
    const settings = join(folder, 'nph-webjob.cfg');
    writeFileSync(settings, `BaseDirectory=${folder}\nEnableLogging=N\nEnableJobIds=N\n`);
    const start = performance.now();
    // When env(1) looks up its Node, httpd's PATH decides, which is not tested here.
    const [command, args] = node.isLookedUp ? [node.path, [link]] : [link, []];
    const {
      error: failure,
      stdout,
      stderr,
      signal,
    } = spawnSync(command, args, {
      ...(canBecome(user) && isRoot() && { uid: user.uid, gid: user.gid }),
      env: {
        REQUEST_METHOD: 'HEAD',
        GATEWAY_INTERFACE: 'CGI/1.1',
        CONTENT_LENGTH: '0',
        QUERY_STRING: '',
        PATH: '/usr/local/bin:/usr/bin:/bin',
        WEBJOB_PROPERTIES_FILE: settings,
      },
      cwd: dirname(link),
      input: '',
      encoding: 'utf8',
      timeout: TIME_LIMIT_MS,
    });
    const elapsed = Math.round(performance.now() - start);
    if (/^HTTP\/1\.[01] \d{3} /.test(stdout ?? ''))
      return note(`the script answers in ${elapsed} ms with Node ${node.version}`, node.path);
    const code = failure && errorCode(failure);
    const isNoexec = code === 'EACCES' && findMount(link)?.options.includes('noexec');
    const lines = (stderr ?? '').split('\n').filter((text) => text.trim() !== '');
    const said =
      lines.find((text) => /error/i.test(text)) ?? lines.at(-1) ?? signal ?? 'the script ends without an answer';
    return error(
      `${user.name} cannot run the script: ${isNoexec ? 'its file system is mounted noexec' : (code ?? said)}`,
      link,
      isNoexec ? formatRemount(link, 'noexec', 'exec') : formatInstall(dirname(link), user),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}
