// How a run ended, according to the run record of its upload. A client sent the file, so it may
// have any size and need not be a run record.
import { type Group, reach } from 'webjob-locker';
import { encodeField, isJobId, NOT_APPLICABLE } from 'webjob-protocol';
import type { Ending } from '../archive/manifest.ts';
import { CLOCK_FIELDS, findClockSkew } from './clock.ts';
import { readHead } from './head.ts';
import type { Site } from './site.ts';

export type { Ending };

/** The ending of an upload's run; undefined when the run record does not exist. */
export function readEnding(site: Site, group: Group): Ending | undefined {
  return readEndingAt(site.settings.incomingDirectory, group.name);
}

/**
 * The ending of an upload's run, for a locker without its site; undefined when the run record does
 * not exist.
 */
export function readEndingAt(locker: string, name: string): Ending | undefined {
  const text = readHead(reach(locker, `${name}.env`));
  return text === undefined ? undefined : describeEnding(parseRecordFields(text));
}

/** The fields of an upload's run record; undefined when it does not exist. */
export function readRecordFields(site: Site, group: Group): Map<string, string> | undefined {
  const text = readHead(reach(site.settings.incomingDirectory, `${group.name}.env`));
  return text === undefined ? undefined : parseRecordFields(text);
}

/** The fields that describeEnding() uses. */
export const ENDING_FIELDS = ['GetError', 'RunError', 'KidStatus', 'KidSignal', 'OuterJid', ...CLOCK_FIELDS];

/** A pattern for fields of a run record. `names` is a regular expression. */
export function fieldPattern(names: string): RegExp {
  return new RegExp(`^(${names})=([^\\r\\n]*)`, 'gm');
}

const ANY_FIELD = fieldPattern('[A-Za-z][A-Za-z0-9]{0,63}');

/**
 * The fields of a run record, all of them or those that match a pattern. Other versions of the
 * client write more fields or another order, but use the same names. Lines that are not `Key=value`
 * are skipped.
 */
export function parseRecordFields(text: string, pattern = ANY_FIELD): Map<string, string> {
  const fields = new Map<string, string>();
  pattern.lastIndex = 0;
  for (let found = pattern.exec(text); found; found = pattern.exec(text)) {
    const [, name = '', value = ''] = found;
    if (!fields.has(name)) fields.set(name, value);
  }
  return fields;
}

/** The ending that the fields describe. A run without an exit status counts as failed. */
export function describeEnding(fields: Map<string, string>): Ending {
  const number = (name: string): number | undefined => {
    const value = fields.get(name) ?? '';
    return /^[0-9]{1,10}$/.test(value) ? Number(value) : undefined;
  };
  const isClean = ['GetError', 'RunError'].every((name) => (fields.get(name) ?? NOT_APPLICABLE) === NOT_APPLICABLE);
  const exitCode = number('KidStatus');
  const signal = number('KidSignal');
  const isGood = isClean && exitCode === 0 && (signal ?? 0) === 0;
  const outer = fields.get('OuterJid') ?? '';
  return {
    isGood,
    exitCode,
    signal: signal || undefined,
    clockSkew: findClockSkew(fields),
    outerId: isJobId(outer) && outer !== NOT_APPLICABLE ? encodeField(outer) : undefined,
  };
}
