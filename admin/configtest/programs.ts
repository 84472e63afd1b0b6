// Checks the programs of the clients below ProfilesDirectory: the web user must be able to read
// each, and a client to run it.
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import type { User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';
import {
  findInterpreter,
  findLineProblem,
  findMeantInterpreter,
  formatReplacement,
  readFirstLine,
} from './firstline.ts';
import { attempt, describeCode, findMend, formatOpening } from './trial.ts';

/** The maximum number of files that are checked, because a site may have any number. */
const MAX_FILES = 20_000;
/** The maximum number of files that are named for each kind of problem. */
const MAX_NAMED = 20;

export function checkPrograms({ profilesDirectory, dsvSignatureSuffix }: ServerSettings, user: User): Finding[] {
  // If the web user cannot access the directory at all, another check reports it.
  if (!existsSync(profilesDirectory) || attempt(user, profilesDirectory, 'list') !== undefined) return [];
  const findings: Finding[] = [];
  let files = 0;
  const look = (folder: string): void => {
    for (const name of readdirSync(folder)) {
      if (++files > MAX_FILES || findings.length >= MAX_NAMED) return;
      const path = join(folder, name);
      const stats = lstatSync(path, { throwIfNoEntry: false });
      if (stats?.isDirectory()) {
        const code = attempt(user, path, 'enter');
        if (code !== undefined) findings.push(describeClosed('enter this directory of programs', code, path, user));
        else look(path);
      } else if (stats?.isFile()) findings.push(...checkProgram(path, user, dsvSignatureSuffix));
    }
  };
  try {
    look(profilesDirectory);
  } catch (failure) {
    findings.push(error(`programs cannot be read: ${errorCode(failure)}`, profilesDirectory, 'run it again as root'));
  }
  if (files > MAX_FILES)
    findings.push(note(`only ${MAX_FILES} of the files below this directory were checked`, profilesDirectory));
  return findings;
}

function checkProgram(path: string, user: User, signatureSuffix: string): Finding[] {
  const code = attempt(user, path, 'read');
  if (code !== undefined) return [describeClosed('read this program, so clients get 457', code, path, user)];
  const line = readFirstLine(path);
  const problem = findLineProblem(line, path);
  // A program that was changed must be signed again.
  const sign = existsSync(path + signatureSuffix)
    ? `  # and sign it again: webjobctl sign payload --key KEY ${quote(path)}`
    : '';
  if (problem) return [error(`clients cannot run this program: ${problem.what}`, path, `${problem.mend}${sign}`)];
  if (!line.startsWith('#!')) return [];
  const interpreter = findInterpreter(line);
  if (existsSync(interpreter) && interpreter.startsWith('/')) return [];
  const meant = interpreter.startsWith('/') ? findMeantInterpreter(interpreter) : findUsual(interpreter);
  const what = `the interpreter of this program is not on this machine: ${interpreter || 'none is named'}`;
  if (meant === undefined) return [note(what, path, 'install it on the clients')];
  return [warning(what, path, `${formatReplacement(path, meant)}${sign}`)];
}

function findUsual(name: string): string | undefined {
  if (name === '') return '/bin/sh';
  return ['/bin', '/usr/bin'].map((folder) => join(folder, basename(name))).find((path) => existsSync(path));
}

function describeClosed(what: string, code: string, path: string, user: User): Finding {
  const mend = findMend(code, path) ?? formatOpening(user, path, `chmod a+rX ${quote(path)}`);
  return error(`${user.name} cannot ${what}${describeCode(code)}`, path, mend);
}
