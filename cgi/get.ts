// serveCommand: finds the command that a GET asks for, its signature and its manifest, runs the
// hook, and answers with the result.
import { closeSync } from 'node:fs';
import type { GetQuery } from 'webjob-protocol';
import { serveBatch } from './batch.ts';
import { findCommand } from './commands.ts';
import type { Answer, Exchange } from './exchange.ts';
import { makePayload } from './hooks.ts';
import { checkUploadName } from './put.ts';
import { Refusal } from './refusal.ts';
import { findManifest, findSignature } from './signature.ts';

/** Answers a GET. Throws Refusal 404, 450, 457, 459, 550 or 551. A file in the answer is open. */
export function serveCommand(exchange: Exchange, query: GetQuery): Answer {
  const { settings } = exchange;
  if (query.fileName === settings.batchCommand) {
    checkUploadName(exchange);
    return serveBatch(exchange, query.clientId);
  }
  const command = findCommand(settings, query.clientId, query.fileName);
  if (!command && !settings.getHookEnable) throw new Refusal(404, 'in no directory of this client');
  try {
    checkUploadName(exchange);
    if (settings.getHookEnable) {
      const path = command ? `${settings.profilesDirectory}/${command.place}` : '';
      const payload = makePayload(exchange, path);
      if (command) closeSync(command.fd);
      return { status: 200, ...payload };
    }
    const signature = command && findSignature(settings.profilesDirectory, command.place + settings.dsvSignatureSuffix);
    if (settings.dsvRequireSignatures && signature === undefined) throw new Refusal(459, 'no signature');
    const manifest = command && findManifest(settings.profilesDirectory, command.place);
    return { status: 200, file: command, signature, manifest };
  } catch (error) {
    if (command) closeSync(command.fd);
    throw error;
  }
}
