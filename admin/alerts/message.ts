// A message about problems, as people and as programs read it.
import { hostname } from 'node:os';
import { safeLine } from '../../cli/output.ts';
import type { AlertEvent, Message } from './state.ts';

/** Events that a mail has word for word. */
const MOST_NAMED = 100;

/** A message as every channel has it. */
export interface Letter {
  id: string;
  at: Date;
  subject: string;
  text: string;
  /** One JSON value. */
  json: string;
}

/** `attempt` above 1 means that the receiver may have it already. */
export function writeLetter({ id, at, events }: Message, site: string, attempt: number): Letter {
  const count = (kind: AlertEvent['kind']): number => events.filter((event) => event.kind === kind).length;
  const [begun, ended, goesOn] = [count('begun'), count('ended'), count('goes on')];
  const parts = [
    ...(begun > 0 ? [`${begun} begun`] : []),
    ...(ended > 0 ? [`${ended} ended`] : []),
    ...(goesOn > 0 ? [`${goesOn} going on`] : []),
  ];
  const [first] = events;
  const summary = events.length === 1 && first ? `${first.kind}: ${first.what} (${first.where})` : parts.join(', ');
  const named = events.slice(0, MOST_NAMED).map(describeEvent);
  const more = events.length - named.length;
  const lines = [
    `Site ${site}, ${new Date(at).toISOString()}`,
    ...(attempt > 1 ? [`This is attempt ${attempt} to send it: you may have it already.`] : []),
    '',
    ...named,
    ...(more > 0 ? [`and ${more} more: webjobctl alert --dry-run`] : []),
  ];
  const time = (milliseconds: number): string => new Date(milliseconds).toISOString();
  return {
    ...{ id, at: new Date(at) },
    subject: safeLine(`[webjob] ${summary}`).slice(0, 200),
    text: `${lines.map(safeLine).join('\n')}\n`,
    json: JSON.stringify({
      ...{ id, type: 'webjob.alert', timestamp: time(at), site, host: hostname(), attempt },
      events: events.map((event) => describeJson(event, time)),
    }),
  };
}

/** As --json prints it. */
export function describeJson(
  { kind, key, what, where, beganAt, at }: AlertEvent,
  time = (milliseconds: number): string => new Date(milliseconds).toISOString(),
): Record<string, unknown> {
  return { event: kind, problem: key, what, where, began: time(beganAt), at: time(at) };
}

/** `begun    client1: …` */
export function describeEvent({ kind, what, where, beganAt }: AlertEvent): string {
  const since = kind === 'begun' ? '' : ` (began ${new Date(beganAt).toISOString()})`;
  return `${kind.padEnd(7)}  ${where}: ${what}${since}`;
}
