// Checks every setting of nph-webjob.cfg and of the overrides: values that are not allowed,
// unknown, repeated or dangerous.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseKeyValue } from 'webjob-conf';
import { parseHostList } from '../../cgi/hosts.ts';
import { CONTROLS, JOB_CONTROLS, type ServerSettings } from '../../cgi/setting-table.ts';
import { type GivenControls, parseSettings, readSettings } from '../../cgi/settings.ts';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { replaceLine, setControl } from './mends.ts';
import { findNearest } from './spelling.ts';

/** The names of the settings that a kind of file may contain. */
const KEYS = CONTROLS.map(({ key }) => key);
const JOB_KEYS = JOB_CONTROLS.map(({ key }) => key);

export interface CheckedControls {
  settings: ServerSettings;
  /** The values in the file itself. */
  given: GivenControls;
  findings: Finding[];
}

export function checkControls(file: string): CheckedControls {
  const { settings, given, problems } = readSettings(file);
  const findings = [
    ...problems.map((problem) => describeProblem(problem, file, 'every request')),
    ...(existsSync(file) ? checkLines(file, KEYS) : [error('the file does not exist', file, formatInit(file))]),
    ...checkRisks(settings, (key) => placeOf(given, key, file)),
    ...checkOverrides(settings, placeOf(given, 'EnableHostAccessList', file)),
  ];
  return { settings, given, findings };
}

/** `FILE:LINE` of a setting, or the file when it is not set. */
export function placeOf(given: GivenControls, key: string, file: string): string {
  const line = /\d+/.exec(given.get(key.toLowerCase())?.place ?? '')?.[0];
  return line === undefined ? file : `${file}:${line}`;
}

/**
 * A value that is not allowed has no effect, so the remedy removes its line; some defaults depend
 * on other settings.
 */
function describeProblem(problem: string, file: string, requests: string): Finding {
  const [, key, line] = /^(\w+) in line (\d+) has a value/.exec(problem) ?? [];
  const why = `${requests} is answered 550 until it is corrected`;
  if (line === undefined) return error(problem, file, `man 5 nph-webjob.cfg  # ${why}`);
  const standard = CONTROLS.find((control) => control.key === key)?.default ?? '';
  const mend = standard.startsWith('<')
    ? formatEdit(`${line}d`, file)
    : replaceLine(file, Number(line), `${key}=${standard}`);
  return error(problem, `${file}:${line}`, `${mend}  # ${why}: that is the default`);
}

const formatEdit = (edit: string, file: string): string => `sed -i ${quote(edit)} ${quote(file)}`;

/** The command that recreates missing parts of the site; existing files stay. */
function formatInit(file: string): string {
  const folder = dirname(resolve(file));
  const layouts: Record<string, string> = { '/etc/webjob': 'debian', '/usr/local/apache/etc': 'article' };
  const has = (name: string): boolean => existsSync(join(folder, name));
  const options = [
    ...(has('webjob-server.crt') ? ['--tls'] : []),
    ...(has('webjob-certificates.conf') ? ['--certificates'] : []),
  ];
  return ['webjobctl init --prefix', quote(layouts[folder] ?? dirname(folder)), ...options].join(' ');
}

/** Lines that the server ignores silently. */
function checkLines(file: string, keys: readonly string[]): Finding[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (failure) {
    return [error(`the file cannot be read: ${errorCode(failure)}`, file, `chmod 644 ${quote(file)}`)];
  }
  const { entries, otherLines } = parseKeyValue(text);
  const known = new Set(keys.map((key) => key.toLowerCase()));
  const seen = new Map<string, number>();
  const findings = otherLines.map((line) =>
    warning('a line without Key=Value has no effect', `${file}:${line}`, formatEdit(`${line}s/^/# /`, file)),
  );
  for (const { key, line } of entries) {
    const name = key.toLowerCase();
    if (!known.has(name)) findings.push(describeUnknown(key, file, line, keys));
    const earlier = seen.get(name);
    if (earlier !== undefined)
      findings.push(
        warning(
          `${key} is in line ${earlier} too, and the last one counts`,
          `${file}:${line}`,
          formatEdit(`${earlier}d`, file),
        ),
      );
    seen.set(name, line);
  }
  return findings;
}

function describeUnknown(key: string, file: string, line: number, keys: readonly string[]): Finding {
  const where = `${file}:${line}`;
  const remove = formatEdit(`${line}d`, file);
  if (keys !== KEYS && KEYS.some((known) => known.toLowerCase() === key.toLowerCase()))
    return warning(
      `${key} cannot be overridden and has no effect here`,
      where,
      `${remove}  # and set it in the main file`,
    );
  const nearest = findNearest(key, keys);
  return warning(
    `${key} is not a setting and has no effect`,
    where,
    nearest === undefined
      ? `${remove}  # nph-webjob.cfg(5) has them all`
      : formatEdit(`${line}s/[A-Za-z0-9_]*/${nearest}/`, file),
  );
}

/**
 * Upload names that no two clients share: the client id is bounded by something a client cannot
 * choose. It may be followed by a character that no client id contains, or by digits of the server.
 */
const OWN_NAME = /(?:^|[/@=,])%cid(?:$|[/@=,.:+]|_%[Yyjs](?!id)|_%pid)/;

function checkRisks(settings: ServerSettings, placeOf: (key: string) => string): Finding[] {
  const risk = (isRisk: boolean, what: string, remedy: string): Finding[] =>
    isRisk ? [warning(what, placeOf(remedy.split('=')[0] ?? ''), format(remedy))] : [];
  const format = (remedy: string): string => {
    const [key = '', value = ''] = remedy.split('=');
    return setControl(placeOf(key), key, value);
  };
  const { requireUser, requireMatch, sslRequireMatch, sslRequireSsl, enableLogging } = settings;
  const { overwriteExistingFiles, keepDifferingUploads, putNameFormat } = settings;
  const isProven = (requireUser && requireMatch) || sslRequireMatch;
  return [
    ...risk(!requireUser && !sslRequireMatch, 'requests need no credentials: RequireUser=N', 'RequireUser=Y'),
    ...risk(
      requireUser && !requireMatch && !sslRequireMatch,
      'every client can act as any other: RequireMatch=N',
      'RequireMatch=Y',
    ),
    ...risk(
      overwriteExistingFiles && !keepDifferingUploads && !OWN_NAME.test(putNameFormat),
      'a client can replace the upload of another client by its choice of a job id: KeepDifferingUploads=N',
      'PutNameFormat=%cid/%jid_%cmd',
    ),
    ...risk(
      setsLimit(settings) && !isProven,
      'a client may use up the limits of another, because no client id is authenticated',
      requireUser ? 'RequireMatch=Y' : 'RequireUser=Y',
    ),
    ...risk(!enableLogging, 'no request leaves a line in the log: EnableLogging=N', 'EnableLogging=Y'),
    ...(sslRequireSsl
      ? []
      : [note('programs, output and passwords may be sent unencrypted: SslRequireSsl=N', placeOf('SslRequireSsl'))]),
  ];
}

/**
 * The script reads the list only up to a client's own lines, and answers 550 for each malformed
 * line.
 */
function checkHostList(path: string, place: string): Finding[] {
  if (!existsSync(path)) {
    const remedy = `${setControl(place, 'EnableHostAccessList', 'N')}  # or name each client there: client1=192.0.2.0/24`;
    return [error('EnableHostAccessList=Y, but the list does not exist: every request is answered 550', path, remedy)];
  }
  try {
    parseHostList(readFileSync(path, 'utf8'));
    return [];
  } catch (failure) {
    const { message } = failure as Error;
    const line = /^line (\d+) /.exec(message)?.[1];
    if (line === undefined)
      return [error(`the file cannot be read: ${errorCode(failure)}`, path, `chmod 644 ${quote(path)}`)];
    const what = `${message}, and requests are answered 550`;
    return [error(what, `${path}:${line}`, formatEdit(`${line}s/^/# /`, path))];
  }
}

/** Checks overrides, and the list of addresses. */
function checkOverrides(settings: ServerSettings, place: string): Finding[] {
  const folder = join(settings.configDirectory, 'nph-webjob');
  const findings = settings.enableHostAccessList ? checkHostList(join(folder, 'hosts.access'), place) : [];
  for (const { file, problems } of readOverrides(settings)) {
    findings.push(...checkLines(file, JOB_KEYS));
    for (const problem of problems) findings.push(describeProblem(problem, file, 'each of its requests'));
  }
  return findings;
}

/** The values in each override file. */
export function readOverrides(
  settings: ServerSettings,
): { file: string; settings: ServerSettings; problems: string[] }[] {
  if (!settings.enableConfigOverrides) return [];
  const folder = join(settings.configDirectory, 'nph-webjob');
  return globSync('{commands,clients}/**/nph-webjob.cfg', { cwd: folder }).map((name) => {
    const file = join(folder, name);
    const problems: string[] = [];
    return { file, settings: parseSettings(readFileSync(file, 'utf8'), problems), problems };
  });
}

/** Whether the main file or an override has a limit for clients. */
export function setsLimit(settings: ServerSettings): boolean {
  return [settings, ...readOverrides(settings).map((override) => override.settings)].some(
    ({ maxBytesPerDay, maxRequestsAtOnce, maxUploadsPerDay }) =>
      maxBytesPerDay + maxRequestsAtOnce + maxUploadsPerDay > 0,
  );
}
