// Result keys, with which clients sign their uploads: made or imported, ended, listed.
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { readResultKeys, resultKeysPath } from '../../evidence/result-keys.ts';
import { formatVerifierKey, parseVerifierKey, verifierOf } from '../../notes/ed25519.ts';
import { NoteError } from '../../notes/note.ts';
import { formatResultKeys, type ResultKey } from '../../notes/result-keys.ts';
import type { Context } from './context.ts';

/**
 * A key for a client: its public half, and the private one in PEM, which goes into the client kit
 * and nowhere else.
 */
export interface MadeKey {
  publicKey: KeyObject;
  /** The private key; undefined for a key that the client made itself. */
  pem: string | undefined;
}

export function makeResultKey(): MadeKey {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  return { publicKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

/**
 * Reads a public key that a client made itself: in PEM, or as a verifier key under any name. Throws
 * Failure `failed`.
 */
export function readPublicResultKey(path: string): MadeKey {
  const fail = (why: string, hint?: string): Failure => new Failure('failed', `${path} ${why}`, hint);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw fail(`cannot be read: ${errorCode(error)}`);
  }
  if (text.includes('PRIVATE KEY'))
    throw fail('contains a private key, which is for the client alone', `openssl pkey -in ${path} -pubout`);
  try {
    const publicKey = text.includes('-----BEGIN') ? createPublicKey(text) : parseVerifierKey(text.trim()).publicKey;
    verifierOf('any', publicKey);
    return { publicKey, pem: undefined };
  } catch (error) {
    throw fail(
      `is not the public half of an Ed25519 key: ${error instanceof NoteError ? error.message : errorCode(error)}`,
    );
  }
}

/** The site's keys for a client, oldest first. Throws Failure `failed`. */
export function listResultKeys({ etcDirectory }: Pick<Context, 'etcDirectory'>, client: string): ResultKey[] {
  return readResultKeys([resultKeysPath(etcDirectory)], client);
}

/** Adds a key for a client. Throws Failure `failed`, also for a key that is already listed. */
export function addResultKey(context: Context, client: string, publicKey: KeyObject, from = new Date()): ResultKey {
  const keys = listResultKeys(context, client);
  const added = { ...verifierOf(client, publicKey), from: wholeSeconds(from), until: undefined };
  if (keys.some(({ id }) => id === added.id))
    throw new Failure('failed', `${client} already has the result key ${client}+${added.id}`);
  writeKeys(context, client, [...keys, added]);
  return added;
}

/**
 * Ends all current keys of a client except one. Returns those that it ended. Throws Failure
 * `failed`.
 */
export function endResultKeys(context: Context, client: string, except?: ResultKey): ResultKey[] {
  const keys = listResultKeys(context, client);
  const ended = keys.filter(({ id, until }) => until === undefined && id !== except?.id);
  if (ended.length === 0) return [];
  const until = wholeSeconds(new Date());
  writeKeys(
    context,
    client,
    keys.map((key) => (ended.includes(key) ? { ...key, until } : key)),
  );
  return ended;
}

/** The key in the form that --json prints. */
export function describeResultKey({ name, id, publicKey, from, until }: ResultKey): Record<string, unknown> {
  return {
    key: formatVerifierKey(name, publicKey),
    id,
    from: from.toISOString(),
    until: until?.toISOString() ?? null,
  };
}

/** `client1+5782c125  since 2026-11-30`, and when it ended. */
export function formatResultKey({ name, id, from, until }: ResultKey): string {
  const day = (date: Date): string => date.toISOString().slice(0, 10);
  return `${name}+${id}  since ${day(from)}${until ? `, ended ${day(until)}` : ''}`;
}

function wholeSeconds(date: Date): Date {
  return new Date(Math.floor(date.getTime() / 1000) * 1000);
}

function writeKeys({ etcDirectory }: Context, client: string, keys: readonly ResultKey[]): void {
  const folder = resultKeysPath(etcDirectory);
  const path = resultKeysPath(etcDirectory, client);
  try {
    if (!existsSync(folder)) mkdirSync(folder, { mode: 0o755 });
    removeUnfinished(path);
    replaceFile(path, formatResultKeys(keys), { mode: 0o644 });
  } catch (error) {
    throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`);
  }
}
