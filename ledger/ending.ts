// How a run ended, as the record of its upload says. A record is what a client sent: it may be of any size, and need not be one.
import { type Group, reach } from 'webjob-locker';
import { encodeField, isJobId, NOT_APPLICABLE } from 'webjob-protocol';
import type { Ending } from '../archive/manifest.ts';
import { CLOCK_FIELDS, findClockSkew } from './clock.ts';
import { readHead } from './head.ts';
import type { Site } from './site.ts';

export type { Ending };

/** Undefined when the record is not there (any more). */
export function readEnding(site: Site, group: Group): Ending | undefined {
  return readEndingAt(site.settings.incomingDirectory, group.name);
}

/** The same for a locker alone. */
export function readEndingAt(locker: string, name: string): Ending | undefined {
  const text = readHead(reach(locker, `${name}.env`));
  return text === undefined ? undefined : describeEnding(parseRecordFields(text));
}

/** The fields of the record of a group; undefined when it is not there. */
export function readRecordFields(site: Site, group: Group): Map<string, string> | undefined {
  const text = readHead(reach(site.settings.incomingDirectory, `${group.name}.env`));
  return text === undefined ? undefined : parseRecordFields(text);
}

/** What `describeEnding` looks at. */
export const ENDING_FIELDS = ['GetError', 'RunError', 'KidStatus', 'KidSignal', 'OuterJid', ...CLOCK_FIELDS];

/** Finds fields of a run record by their names, which are given as a regular expression. */
export function fieldPattern(names: string): RegExp {
  return new RegExp(`^(${names})=([^\\r\\n]*)`, 'gm');
}

const ANY_FIELD = fieldPattern('[A-Za-z][A-Za-z0-9]{0,63}');

/**
 * The fields of a run record, all of them or those of a pattern. Clients of other versions write other fields in other orders, but these names.
 * Skips everything that is not `Key=value`.
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

/** What tells of no exit status is no good ending. */
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
    ...{ isGood, exitCode, signal: signal || undefined, clockSkew: findClockSkew(fields) },
    outerId: isJobId(outer) && outer !== NOT_APPLICABLE ? encodeField(outer) : undefined,
  };
}
