// Delivers the messages in the outbox in order, over each channel. The state file records that a
// message is about to be sent, and later that it was accepted: after a kill in between, it is sent
// again with the same id.
import { Failure } from '../../cli/failure.ts';
import type { Channel, Rules } from '../../fleet/expect.ts';
import { nameChannel, send } from './channels.ts';
import { writeLetter } from './message.ts';
import { type AlertState, forgetSent, nextAttemptAt } from './state.ts';

/** The result of one attempt. */
export interface Attempt {
  channel: string;
  messageId: string;
  attempt: number;
  /** The reason for a failure; undefined when the message was accepted. */
  error: string | undefined;
}

export interface Deliverer {
  state: AlertState;
  rules: Rules;
  /** The name of the site. */
  site: string;
  /** Saves the state, which is on disk when this returns. */
  keep(): void;
}

/** Sends the messages that are due. A channel that failed pauses; the others continue. */
export async function deliver({ state, rules, site, keep }: Deliverer): Promise<Attempt[]> {
  const attempts: Attempt[] = [];
  dropUnknown(state, rules);
  for (const channel of rules.channels) {
    const name = nameChannel(channel);
    const due = state.failures[name]?.nextAt ?? 0;
    // A clock that was set back far must not delay messages.
    if (Date.now() < due && due - Date.now() <= 3_600_000 + rules.retry * 1000) continue;
    for (let delivery = findNext(state, name); delivery; delivery = findNext(state, name)) {
      const message = state.messages.find(({ id }) => id === delivery?.messageId);
      delivery.attempts++;
      keep();
      const error = message
        ? await trySending(channel, writeLetter(message, site, delivery.attempts), delivery.attempts, rules)
        : undefined;
      attempts.push({ channel: name, messageId: delivery.messageId, attempt: delivery.attempts, error });
      if (error !== undefined) {
        const count = (state.failures[name]?.count ?? 0) + 1;
        state.failures[name] = { count, nextAt: nextAttemptAt(count, rules.retry, Date.now()) };
        break;
      }
      delete state.failures[name];
      state.outbox = state.outbox.filter((one) => one !== delivery);
      forgetSent(state);
    }
  }
  keep();
  return attempts;
}

function findNext({ outbox }: AlertState, name: string): AlertState['outbox'][number] | undefined {
  return outbox.find(({ channel }) => channel === name);
}

/** Drops messages for channels that are no longer configured. */
function dropUnknown(state: AlertState, { channels }: Rules): void {
  const names = new Set(channels.map(nameChannel));
  state.outbox = state.outbox.filter(({ channel }) => names.has(channel));
  state.failures = Object.fromEntries(Object.entries(state.failures).filter(([name]) => names.has(name)));
  forgetSent(state);
}

async function trySending(
  channel: Channel,
  letter: ReturnType<typeof writeLetter>,
  attempt: number,
  { timeout }: Rules,
): Promise<string | undefined> {
  try {
    await send(channel, letter, attempt, timeout);
    return undefined;
  } catch (error) {
    if (error instanceof Failure) return error.message;
    throw error;
  }
}
