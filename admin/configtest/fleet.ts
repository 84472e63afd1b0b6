// Checks the files that an administrator edits for many clients: groups, expectations, and the
// secrets that these name.
import { existsSync, readFileSync, statSync } from 'node:fs';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { type Channel, ExpectError, parseExpect, type Rules } from '../../fleet/expect.ts';
import { GroupsError, parseGroups } from '../../fleet/groups.ts';
import { fleetPaths } from '../../fleet/paths.ts';
import { error, type Finding, warning } from './finding.ts';
import type { Mends } from './mends.ts';

/** Checks the files; reports nothing when there are none. */
export function checkFleet(settings: ServerSettings, { webjobctl }: Mends): Finding[] {
  const { groups: groupsFile, expect: expectFile } = fleetPaths(settings);
  const findings: Finding[] = [];
  const read = <Parsed>(path: string, parse: (text: string) => Parsed, form: string): Parsed | undefined => {
    try {
      return existsSync(path) ? parse(readFileSync(path, 'utf8')) : undefined;
    } catch (failure) {
      const isWrong = failure instanceof GroupsError || failure instanceof ExpectError;
      const where = isWrong ? `${path}:${failure.line}` : path;
      const what = isWrong
        ? failure.message.replace(/^line \d+: /, '')
        : `the file cannot be read: ${errorCode(failure)}`;
      findings.push(error(what, where, form));
      return undefined;
    }
  };
  read(groupsFile, parseGroups, 'name = member member ...');
  const rules = read(expectFile, parseExpect, 'man webjobctl  # alert');
  if (rules) findings.push(...checkRules(rules, expectFile, webjobctl));
  return findings;
}

function checkRules({ channels, ping }: Rules, file: string, webjobctl: string): Finding[] {
  if (channels.length === 0)
    return [
      warning(
        'no alert is sent: the file has no line that begins with tell',
        file,
        `tell mail root  # then ${webjobctl} alert --test`,
      ),
    ];
  const secrets = [
    ...channels.flatMap((channel) => secretsOf(channel).map((path) => [path, channel.line] as const)),
    ...(ping?.startsWith('@') ? [[ping.slice(1), undefined] as const] : []),
  ];
  return [
    ...secrets.flatMap(([path, line]) => checkSecret(path, line === undefined ? file : `${file}:${line}`)),
    ...channels.flatMap(checkProgram(file)),
  ];
}

function secretsOf(channel: Channel): string[] {
  if (channel.kind === 'mail') return channel.passwordFile === undefined ? [] : [channel.passwordFile];
  if (channel.kind !== 'webhook') return [];
  const url = channel.url.startsWith('@') ? [channel.url.slice(1)] : [];
  return channel.secretFile === undefined ? url : [...url, channel.secretFile];
}

function checkSecret(path: string, where: string): Finding[] {
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found?.isFile()) return [error(`${path} is not there`, where, `install -m 600 /dev/stdin ${quote(path)}`)];
  if ((found.mode & 0o077) === 0) return [];
  return [error('others can read this secret', path, `chmod 600 ${quote(path)}  # and have another one made`)];
}

const checkProgram =
  (file: string) =>
  (channel: Channel): Finding[] => {
    if (channel.kind === 'webhook' || (channel.kind === 'mail' && channel.smtp !== undefined)) return [];
    const program = channel.kind === 'mail' ? channel.sendmail : (channel.words[0] ?? '');
    const found = statSync(program, { throwIfNoEntry: false });
    if (found?.isFile() && (found.mode & 0o111) !== 0) return [];
    const remedy =
      channel.kind === 'mail' ? 'smtp=smtp://HOST:25  # or install one that sends mail' : `ls -l ${quote(program)}`;
    return [error(`${program} is not a program`, `${file}:${channel.line}`, remedy)];
  };
