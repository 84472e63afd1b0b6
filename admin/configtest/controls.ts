// Every control of nph-webjob.cfg and of the overrides: what is not allowed, not known, said twice, or dangerous.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseKeyValue } from 'webjob-conf';
import { CONTROLS, JOB_CONTROLS, type ServerSettings } from '../../cgi/controls.ts';
import { parseSettings, readSettings } from '../../cgi/settings.ts';
import { errorCode } from '../../cli/files.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { findNearest } from './spelling.ts';

/** Names of the controls, as far as a kind of file may hold them. */
const KEYS = CONTROLS.map(({ key }) => key);
const JOB_KEYS = JOB_CONTROLS.map(({ key }) => key);

export function checkControls(file: string): { settings: ServerSettings; findings: Finding[] } {
  const { settings, problems } = readSettings(file);
  const findings = [
    ...problems.map((problem) =>
      error(problem, file, 'every request is answered 550 until it is right: nph-webjob.cfg(5)'),
    ),
    ...(existsSync(file) ? checkLines(file, KEYS) : [error('the file is not there', file, 'webjobctl init makes one')]),
    ...checkRisks(settings, file),
    ...checkOverrides(settings),
  ];
  return { settings, findings };
}

/** What the server passes over without a word. */
function checkLines(file: string, keys: readonly string[]): Finding[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (failure) {
    return [error(`it cannot be read: ${errorCode(failure)}`, file, 'it must be readable for the web user')];
  }
  const { entries, strayLines } = parseKeyValue(text);
  const known = new Set(keys.map((key) => key.toLowerCase()));
  const seen = new Map<string, number>();
  const findings = strayLines.map((line) =>
    warning('a line that is no Key=Value means nothing', `${file}:${line}`, 'begin it with #, or give it a value'),
  );
  for (const { key, line } of entries) {
    const name = key.toLowerCase();
    if (!known.has(name)) findings.push(describeUnknown(key, `${file}:${line}`, keys));
    const earlier = seen.get(name);
    if (earlier !== undefined)
      findings.push(warning(`${key} is in line ${earlier} too, and the last one holds`, `${file}:${line}`, 'keep one'));
    seen.set(name, line);
  }
  return findings;
}

function describeUnknown(key: string, where: string, keys: readonly string[]): Finding {
  if (keys !== KEYS && KEYS.some((known) => known.toLowerCase() === key.toLowerCase()))
    return warning(`${key} cannot be overridden, and means nothing here`, where, 'set it in the main file');
  const nearest = findNearest(key, keys);
  return warning(
    `${key} is no control, and means nothing`,
    where,
    nearest === undefined ? 'remove it: nph-webjob.cfg(5) has them all' : `write ${nearest}`,
  );
}

/**
 * Names that no two clients share: where the client id begins and ends, nothing else can stand that a client chooses. It may be followed by
 * what no client id has in it, or by digits of ours.
 */
const OWN_NAME = /(?:^|[/@=,])%cid(?:$|[/@=,.:+]|_%[Yyjs](?!id)|_%pid)/;

function checkRisks(settings: ServerSettings, file: string): Finding[] {
  const risk = (isRisk: boolean, what: string, remedy: string): Finding[] =>
    isRisk ? [warning(what, file, remedy)] : [];
  const { requireUser, requireMatch, sslRequireMatch, sslRequireSsl, enableLogging } = settings;
  const { overwriteExistingFiles, keepDifferingUploads, putNameFormat } = settings;
  return [
    ...risk(!requireUser && !sslRequireMatch, 'nobody has to say who he is: RequireUser=N', 'RequireUser=Y'),
    ...risk(
      requireUser && !requireMatch && !sslRequireMatch,
      'every client may get and put as every other: RequireMatch=N',
      'RequireMatch=Y',
    ),
    ...risk(
      overwriteExistingFiles && !keepDifferingUploads && !OWN_NAME.test(putNameFormat),
      'a client may choose a job id with which it replaces what another has put: KeepDifferingUploads=N',
      'PutNameFormat=%cid/%jid_%cmd',
    ),
    ...risk(!enableLogging, 'no request leaves a line in the log: EnableLogging=N', 'EnableLogging=Y'),
    ...(sslRequireSsl ? [] : [note('programs, output and passwords may travel in the clear: SslRequireSsl=N', file)]),
  ];
}

/** Settings of one client or command, and the list of addresses. */
function checkOverrides(settings: ServerSettings): Finding[] {
  const folder = join(settings.configDirectory, 'nph-webjob');
  const hosts = join(folder, 'hosts.access');
  const findings =
    settings.enableHostAccessList && !existsSync(hosts)
      ? [
          error(
            'EnableHostAccessList=Y, and there is no list',
            hosts,
            'every request is answered 550 until there is one',
          ),
        ]
      : [];
  if (!settings.enableConfigOverrides) return findings;
  for (const name of globSync('{commands,clients}/**/nph-webjob.cfg', { cwd: folder })) {
    const file = join(folder, name);
    const problems: string[] = [];
    findings.push(...checkLines(file, JOB_KEYS));
    parseSettings(readFileSync(file, 'utf8'), problems);
    for (const problem of problems)
      findings.push(error(problem, file, 'its requests are answered 550 until it is right'));
  }
  return findings;
}
