// May this caller act for this client id? Authentication is httpd's work; this only compares what httpd says.
import type { Exchange } from './exchange.ts';
import { Refusal } from './refusal.ts';

/** Throws Refusal 452 or 453. RequireMatch acts only together with RequireUser. */
export function checkCaller({ request, settings }: Exchange, clientId: string): void {
  if (!settings.requireUser) return;
  if (request.remoteUser === undefined) throw new Refusal(452, 'httpd authenticated nobody');
  if (settings.requireMatch && request.remoteUser !== clientId) {
    throw new Refusal(453, 'the user is not the client id');
  }
}
