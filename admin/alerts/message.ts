// Formats a message about problems for people and for programs.
import { hostname } from 'node:os';
import { safeLine } from '../../cli/output.ts';
import type { AlertEvent, Message } from './state.ts';

/** The maximum number of events that a mail lists one by one. */
const MOST_NAMED = 100;

/** A message in the form that channels send. */
export interface Letter {
  id: string;
  at: Date;
  subject: string;
  text: string;
  /** One JSON value. */
  json: string;
}

/** Formats a message. With `attempt` above 1, the receiver may already have it. */
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
    ...(attempt > 1 ? [`This is attempt ${attempt} to send this message: you may already have it.`] : []),
    '',
    ...named,
    ...(more > 0 ? [`and ${more} more: webjobctl alert --dry-run`] : []),
  ];
  const time = (milliseconds: number): string => new Date(milliseconds).toISOString();
  return {
    id,
    at: new Date(at),
    subject: safeLine(`[webjob] ${summary}`).slice(0, 200),
    text: `${lines.map(safeLine).join('\n')}\n`,
    json: JSON.stringify({
      id,
      type: 'webjob.alert',
      timestamp: time(at),
      site,
      host: hostname(),
      attempt,
      events: events.map((event) => describeJson(event, time)),
    }),
  };
}

/** The event in the form that --json prints. */
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
