// serveCommand: find what a GET asks for and answer with it.
import type { GetQuery } from 'webjob-protocol';
import { findCommand } from './commands.ts';
import type { Answer, Exchange } from './exchange.ts';
import { Refusal } from './refusal.ts';

/** Throws Refusal 404 or 457. The file in the answer is open. */
export function serveCommand({ settings }: Exchange, query: GetQuery): Answer {
  const file = findCommand(settings, query.clientId, query.fileName);
  if (!file) throw new Refusal(404, 'in no folder of this client');
  return { status: 200, file };
}
