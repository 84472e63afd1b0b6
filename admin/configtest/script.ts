// nph-webjob.cgi itself: its name, owner and mode, who runs it, and how long that takes.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { errorCode } from '../../cli/files.ts';
import { askVersion, isNewEnough } from '../site/interpreter.ts';
import { mayAccess, type User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';

const RUNS = 2;

/** `folder` is where ScriptAlias leads. */
export function checkScripts(folder: string, user: User): Finding[] {
  let names: string[];
  try {
    names = readdirSync(folder).filter(
      (name) => /webjob/i.test(name) && !name.endsWith('.bak') && !name.endsWith('.cjs'),
    );
  } catch (failure) {
    return [error(`the folder of the script cannot be read: ${errorCode(failure)}`, folder, 'webjobctl init makes it')];
  }
  if (names.length === 0) return [error('no script is in it', folder, 'copy dist/nph-webjob.cgi there, mode 755')];
  return [...names.flatMap((name) => checkScript(join(folder, name), user)), ...checkOld(folder)];
}

function checkScript(link: string, user: User): Finding[] {
  const findings: Finding[] = [];
  if (!basename(link).startsWith('nph-'))
    findings.push(error('httpd takes it for no nph script: its name does not begin with nph-', link, 'rename it'));
  try {
    const path = realpathSync(link);
    if (!mayAccess(user, path, 'run') || !mayAccess(user, path, 'read'))
      return [...findings, error(`${user.name} cannot run it`, path, `chmod 755 ${path} and the folders above it`)];
    for (const place of [path, dirname(path)]) {
      if (user.uid !== process.getuid?.() && mayAccess(user, place, 'write'))
        findings.push(
          error(`${user.name} may change what httpd runs`, place, `chown 0:0 ${place} && chmod 755 ${place}`),
        );
    }
    return [...findings, ...checkInterpreter(path, user)];
  } catch (failure) {
    return [
      ...findings,
      error(`it cannot be looked at: ${errorCode(failure)}`, link, 'copy dist/nph-webjob.cgi there'),
    ];
  }
}

function checkInterpreter(path: string, user: User): Finding[] {
  const line = readFirstLine(path);
  const [, interpreter, argument] = /^#!\s*(\/\S+)(?:\s+(\S+))?\s*$/.exec(line) ?? [];
  if (interpreter === undefined) return [error('its first line names no interpreter', path, '#!/path/to/node')];
  const isLookedUp = basename(interpreter) === 'env';
  const mend = 'webjobctl init writes the absolute path of a Node into it; --node says which';
  const node = isLookedUp ? findInPath(argument ?? '') : interpreter;
  const findings = isLookedUp ? [warning("its Node is looked up in httpd's PATH, which is not yours", path, mend)] : [];
  const version = node === undefined ? undefined : askVersion(node);
  if (node === undefined || version === undefined)
    return [...findings, error(`its interpreter is no Node: ${line}`, path, mend)];
  if (!isNewEnough(version)) return [...findings, error(`its Node is ${version}, too old`, node, mend)];
  if (!mayAccess(user, realpathSync(node), 'run'))
    return [...findings, error(`${user.name} cannot run its Node`, node, mend)];
  return [...findings, describeStart(node, version, path)];
}

/** An earlier version of init put the old script aside here, where httpd still runs it. */
function checkOld(folder: string): Finding[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.bak'))
    .map((name) => join(folder, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
    .map((path) => warning('clients can still run what an earlier init has replaced', path, `rm ${path}`));
}

function readFirstLine(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(256);
    return buffer.toString('latin1', 0, readSync(fd, buffer)).split('\n')[0] ?? '';
  } finally {
    closeSync(fd);
  }
}

function findInPath(name: string): string | undefined {
  const places = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  return places
    .map((folder) => join(folder, name))
    .find((place) => statSync(place, { throwIfNoEntry: false })?.isFile());
}

/** A refused request under settings of its own, beside an empty script: the better of two each. */
function describeStart(node: string, version: string, script: string): Finding {
  const folder = mkdtempSync(join(tmpdir(), 'webjobctl-'));
  try {
    const [empty, settings] = [join(folder, 'empty.cjs'), join(folder, 'nph-webjob.cfg')];
    writeFileSync(empty, '');
    writeFileSync(settings, `BaseDirectory=${folder}\nEnableLogging=N\nEnableJobIds=N\n`);
    const request = { REQUEST_METHOD: 'HEAD', GATEWAY_INTERFACE: 'CGI/1.1', CONTENT_LENGTH: '0', QUERY_STRING: '' };
    const time = (file: string): number => {
      const times = Array.from({ length: RUNS }, () => {
        const start = performance.now();
        spawnSync(node, [file], { env: { ...request, WEBJOB_PROPERTIES_FILE: settings }, input: '', timeout: 10_000 });
        return performance.now() - start;
      });
      return Math.round(Math.min(...times));
    };
    const [own, nothing] = [time(script), time(empty)];
    return note(`Node ${version} answers with it in ${own} ms, and runs an empty script in ${nothing} ms`, node);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
