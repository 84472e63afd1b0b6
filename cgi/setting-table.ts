// THE table of nph-webjob.cfg: every setting with its allowed values, its default and its type in
// ServerSettings. conf/nph-webjob.cfg explains each setting. The shipped file, the man page and the
// tests are checked against this table, and no other file has a pattern or a default
// (docs/protocol.md, section 4).
import { NAME_PATTERNS } from 'webjob-protocol';
import { COMMAND_PATTERNS, NAME_FORMAT_PATTERN } from './tokens.ts';

export interface Control<Key extends string = string, Type = unknown> {
  key: Key;
  default: string;
  /** A pattern, anchored at both ends. */
  allowed: string;
  /** Converts an allowed text to the value; undefined for a setting whose value is text. */
  parse: ((text: string) => Type) | undefined;
}

const FOLDER = '(?!\\.{1,2}(?::|$))[A-Za-z0-9_.-]+';
const BYTES = '[0-9]{1,15}';
/** A number of seconds that is always less than the age at which a lock counts as abandoned. */
const SECONDS = '[1-9][0-9]{0,2}';
const EXIT_STATUS = '[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5]';
/** `server_2:/srv/webjob/logfiles/server_2` */
const SITE_SERVER = `${NAME_PATTERNS.serverId}:/[^\\x00-\\x1f\\x7f,]*`;
const orNothing = (pattern: string): string => `(?:${pattern})?`;

const text = <Key extends string>(key: Key, value: string, allowed: string): Control<Key, string> => {
  return { key, default: value, allowed, parse: undefined };
};
const directory = <Key extends string>(key: Key, value: string) => text(key, value, '/[^\\x00-\\x1f\\x7f]*');
const flag = <Key extends string>(key: Key, value: 'Y' | 'N'): Control<Key, boolean> => {
  return { key, default: value, allowed: '[YNyn]', parse: (given) => given === 'Y' || given === 'y' };
};
const number = <Key extends string>(key: Key, value: string, allowed: string): Control<Key, number> => {
  return { key, default: value, allowed, parse: Number };
};

/** Settings for the main file only: they decide who may enter and where files are. */
export const SITE_CONTROLS = [
  directory('BaseDirectory', '/var/webjob'),
  directory('ConfigDirectory', '<Base>/config'),
  directory('DynamicDirectory', '<Base>/dynamic'),
  directory('IncomingDirectory', '<Base>/incoming'),
  directory('LimitsDirectory', '<Base>/limits'),
  directory('LogfilesDirectory', '<Base>/logfiles'),
  directory('ProfilesDirectory', '<Base>/profiles'),
  directory('SpoolDirectory', '<Base>/spool'),
  number('CustodySegmentLimit', '67108864', BYTES),
  flag('EnableConfigOverrides', 'Y'),
  flag('EnableCustody', 'Y'),
  flag('EnableHostAccessList', 'N'),
  flag('EnableJobIds', 'Y'),
  flag('EnableLogging', 'Y'),
  flag('EnableRequestTracking', 'N'),
  flag('RequireMatch', 'Y'),
  flag('RequireUser', 'Y'),
  text('ServerId', 'server_1', NAME_PATTERNS.serverId),
  text('SiteServers', '', orNothing(`${SITE_SERVER}(?:,${SITE_SERVER})*`)),
  flag('SslRequireCn', 'N'),
  flag('SslRequireMatch', 'N'),
  flag('SslRequireSsl', 'N'),
  flag('UseGMT', 'N'),
  text('ViewURL', '', orNothing('https?://[A-Za-z0-9._~:/%\\[\\]-]{1,500}')),
] as const;

/** Settings that an override for a client or command may change too. */
export const JOB_CONTROLS = [
  text('BatchCommand', '', orNothing(`(?!\\.{1,2}$)${NAME_PATTERNS.fileName}`)),
  flag('CapContentLength', 'N'),
  flag('DsvRequireSignatures', 'N'),
  text('DsvSignatureSuffix', '.sig', '\\.[A-Za-z0-9_.-]{1,32}'),
  flag('EnableGetService', 'Y'),
  flag('EnablePutService', 'Y'),
  text('FolderList', 'common', orNothing(`${FOLDER}(?::${FOLDER})*`)),
  flag('GetHookEnable', 'N'),
  text('GetHookCommandLine', '', orNothing(COMMAND_PATTERNS.getHook)),
  flag('GetHookLogDivertedOutput', 'N'),
  number('GetHookOutputLimit', '100000000', BYTES),
  number('GetHookStatus', '0', EXIT_STATUS),
  number('GetHookTimeLimit', '30', SECONDS),
  flag('GetRequireContentLength', 'Y'),
  flag('GetTriggerEnable', 'N'),
  text('GetTriggerCommandLine', '', orNothing(COMMAND_PATTERNS.getTrigger)),
  flag('KeepDifferingUploads', 'Y'),
  number('MaxBytesPerDay', '0', BYTES),
  number('MaxContentLength', '100000000', '[0-9]{1,20}'),
  number('MaxRequestsAtOnce', '0', '[0-9]{1,3}'),
  number('MaxUploadsPerDay', '0', '[0-9]{1,8}'),
  flag('OverwriteExistingFiles', 'N'),
  flag('PutHookEnable', 'N'),
  text('PutHookCommandLine', '', orNothing(COMMAND_PATTERNS.put)),
  flag('PutHookLogDivertedOutput', 'N'),
  number('PutHookStatus', '0', EXIT_STATUS),
  number('PutHookTimeLimit', '30', SECONDS),
  text('PutNameFormat', '%cid_%Y%m%d%H%M%S_%pid_%cmd', NAME_FORMAT_PATTERN),
  flag('PutTriggerEnable', 'N'),
  text('PutTriggerCommandLine', '', orNothing(COMMAND_PATTERNS.put)),
] as const;

export const CONTROLS = [...SITE_CONTROLS, ...JOB_CONTROLS] as const;

type AnyControl = (typeof CONTROLS)[number];
export type ControlKey = AnyControl['key'];

/**
 * One property for each setting, with its name in lower camel case: RequireUser is `requireUser:
 * boolean`.
 */
export type ServerSettings = {
  [Row in AnyControl as Uncapitalize<Row['key']>]: Row extends Control<string, infer Type> ? Type : never;
};
