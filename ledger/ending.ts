// How a run ended, as the record of its upload says. A record is what a client sent: it may be of any size, and need not be one.
import { join } from 'node:path';
import type { Group } from 'webjob-locker';
import { encodeField, isJobId, NOT_APPLICABLE } from 'webjob-protocol';
import type { Ending } from '../archive/manifest.ts';
import { findClockSkew } from './clock.ts';
import { readHead } from './head.ts';
import type { Site } from './site.ts';

export type { Ending };

/** Undefined when the record is not there (any more). */
export function readEnding(site: Site, group: Group): Ending | undefined {
  return readEndingAt(site.settings.incomingDirectory, group.name);
}

/** The same for a locker alone. */
export function readEndingAt(locker: string, name: string): Ending | undefined {
  const text = readHead(join(locker, `${name}.env`));
  return text === undefined ? undefined : describeEnding(parseRecordFields(text));
}

/** The fields of the record of a group; undefined when it is not there. */
export function readRecordFields(site: Site, group: Group): Map<string, string> | undefined {
  const text = readHead(join(site.settings.incomingDirectory, `${group.name}.env`));
  return text === undefined ? undefined : parseRecordFields(text);
}

/** Clients of other versions write other fields in other orders, but these names. What is no `Key=value` is passed over. */
export function parseRecordFields(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const [, name = '', value = ''] of text.matchAll(/^([A-Za-z]{1,64})=([^\r\n]*)/gm))
    if (!fields.has(name)) fields.set(name, value);
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
