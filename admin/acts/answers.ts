// Answers: the result of each request, and the packages that were made. Root writes them, the view
// reads them.
import { chmodSync, chownSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import { replaceFile, requireRootsOwn } from '../../cli/files.ts';
import { isRoot, type User } from '../site/users.ts';
import { ACT_LIFETIME_MS, type ActAnswer, actFile, formatAnswer, parseActId, parseAnswer, tagOf } from './request.ts';

/**
 * Creates the directory of answers if it is missing, readable by the group of the inbox's owner.
 */
export function openAnswers(folder: string, reader: Pick<User, 'gid'>): void {
  requireRootsOwn(folder);
  if (existsSync(folder)) return;
  makeFolder(folder);
  if (isRoot()) chownSync(folder, 0, reader.gid);
  chmodSync(folder, 0o750);
}

/** Writes an answer, which is on disk when this returns. */
export function writeAnswer(folder: string, answer: ActAnswer, reader: Pick<User, 'gid'>): void {
  const owner = isRoot() ? { uid: 0, gid: reader.gid } : undefined;
  replaceFile(join(folder, actFile(answer.id)), formatAnswer(answer), { mode: 0o640, owner });
}

/**
 * Reads an answer; undefined when there is none. Throws the error of a system call, and
 * SyntaxError.
 */
export function readAnswer(folder: string, id: string): ActAnswer | undefined {
  const path = join(folder, actFile(id));
  return existsSync(path) ? parseAnswer(readFileSync(path, 'utf8')) : undefined;
}

/** The answers about one job or assignment; empty when there are none. */
export function readAnswers(folder: string, subject: string): ActAnswer[] {
  return listIds(folder, subject).flatMap((id) => readAnswer(folder, id) ?? []);
}

/** The ids of the requests or answers about one job or assignment in a directory. */
export function listIds(folder: string, subject: string): string[] {
  const tag = tagOf(subject);
  return listAll(folder).filter((id) => parseActId(id)?.tag === tag);
}

/** The ids of all requests or answers in a directory. */
export function listAll(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap((name) => {
    const id = /^(.*)\.json$/.exec(name)?.[1] ?? '';
    return parseActId(id) ? [id] : [];
  });
}

/** The path of the package that an act made. */
export function packageFile(folder: string, id: string): string {
  return join(folder, `${id}.zip`);
}

/** Removes expired answers with their packages, and files left by a killed run. */
export function removeOldAnswers(folder: string, now: number): void {
  for (const name of readdirSync(folder)) {
    const { at } = parseActId(name.replace(/\.(?:json|zip)$/, '')) ?? {};
    if (at === undefined ? name.startsWith('.') : at < now - ACT_LIFETIME_MS || /-[0-9a-f]{32}$/.test(name))
      rmSync(join(folder, name), { recursive: true, force: true });
  }
}
