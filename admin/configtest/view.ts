// Checks the view, if httpd has one: whether its process answers, its user and data, and whether
// requested acts are carried out.
import { existsSync, statSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { openInbox } from '../acts/inbox.ts';
import { actFolders } from '../acts/request.ts';
import { readWaiting } from '../acts/waiting.ts';
import { findUserById, findUserName, isRoot, mayAccess } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { type Directive, splitArguments } from './httpd.ts';

const ANSWER_MS = 3000;
/** If an act waits longer, no process carries out acts. */
const LATE_MS = 300_000;

/** Checks the view; reports nothing for a site without one in httpd. */
export async function checkView(settings: ServerSettings, directives: readonly Directive[]): Promise<Finding[]> {
  const set = directives
    .filter(({ name }) => name === 'SetEnv')
    .map(({ value, where }) => ({ words: splitArguments(value), where }));
  const state = set.find(({ words: [name] }) => name === 'WEBJOB_VIEW_DIRECTORY');
  if (!state) return [];
  const folder = state.words[1] ?? '';
  const hasActs = set.some(({ words: [name] }) => name === 'WEBJOB_VIEW_ACTS');
  return [
    ...checkStore(settings, folder, state.where),
    ...(await checkSockets(directives)),
    ...(hasActs ? checkActs(settings) : []),
  ];
}

function checkStore({ incomingDirectory }: ServerSettings, folder: string, where: string): Finding[] {
  const stats = statSync(folder, { throwIfNoEntry: false });
  if (!stats?.isDirectory())
    return [error('the directory of the view is missing', where, `install -d -o USER -m 700 ${folder}`)];
  const findings: Finding[] = [];
  const owner = findUserById(stats.uid);
  if (owner && isRoot() && existsSync(incomingDirectory) && mayAccess(owner, incomingDirectory, 'write'))
    findings.push(
      warning(
        `the view runs as ${findUserName(stats.uid)}, who can write to the locker`,
        folder,
        'use a persistent process with a user of its own: docs/guide/view.md, Setting it up',
      ),
    );
  if ((stats.mode & 0o022) !== 0)
    findings.push(error('others can write to the directory of the view', folder, `chmod 700 ${folder}`));
  const store = statSync(join(folder, 'webjob.sqlite'), { throwIfNoEntry: false });
  findings.push(
    store
      ? note('the view has an index', join(folder, 'webjob.sqlite'))
      : note('the view has no index yet: its first reader waits for it', folder),
  );
  return findings;
}

/** Checks that a persistent process accepts connections where httpd looks for it. */
async function checkSockets(directives: readonly Directive[]): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { name, value, sections, where } of directives) {
    const [, path] = /^proxy:unix:([^|]+)\|fcgi:/.exec(splitArguments(value)[0] ?? '') ?? [];
    const isView = sections.some((section) => section.includes('webjob-view.cgi'));
    if (name !== 'SetHandler' || path === undefined || !isView) continue;
    const problem = await connect(path);
    if (problem !== undefined)
      findings.push(
        error(
          `the process of the view does not answer at ${path}: ${problem}`,
          where,
          'systemctl enable --now webjob-view.socket',
        ),
      );
  }
  return findings;
}

function connect(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    const done = (problem: string | undefined): void => {
      socket.destroy();
      resolve(problem);
    };
    socket.once('connect', () => done(undefined));
    socket.once('error', ({ code, message }: NodeJS.ErrnoException) => done(code ?? message));
    socket.setTimeout(ANSWER_MS, () => done('nothing'));
  });
}

function checkActs(settings: ServerSettings): Finding[] {
  const { inbox } = actFolders(settings);
  try {
    openInbox(inbox, settings.incomingDirectory).close();
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    return [error(failure.message, inbox, failure.hints[0] ?? '')];
  }
  const { count = 0, oldest } = readWaiting(settings) ?? {};
  if (!oldest || Date.now() - oldest.getTime() < LATE_MS) return [];
  const what = count === 1 ? 'an act waits' : `${count} acts wait`;
  return [
    warning(
      `${what} since ${oldest.toISOString()}, and nothing carries them out`,
      inbox,
      'systemctl enable --now webjob-acts.path webjob-acts.timer',
    ),
  ];
}
