// GetHook: the command that makes the program out of what was fetched, and whose failure is the job's (docs/protocol.md, section 7).
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from './failure.ts';
import { signalSession } from './processes.ts';
import type { ClientSettings } from './settings.ts';
import { findSystemProgram, makeShellCommand } from './windows.ts';

const MAX_COMPLAINT_LENGTH = 200;
const LAST_WORDS_MS = 500;

/**
 * Runs the hook in the folder where `fetched` lies; what it left there as `program` is the program. `onStart` is given what ends the hook
 * when webjob ends before it. Throws Failure `get`.
 */
export async function runGetHook(
  settings: ClientSettings,
  folder: string,
  fetched: string,
  program: string,
  onStart: (end: () => void) => void,
): Promise<void> {
  // Names of programs hold nothing a shell takes apart; one that begins with a dash would be taken for an option.
  // What stands behind a slash cmd.exe would take for an option.
  const here = process.platform === 'win32' ? '.\\' : './';
  const values: Record<string, string> = { '%file': here + fetched, '%cmd': here + program, '%%': '%' };
  const command = settings.getHookCommandLine.replace(/%(?:%|cmd|file)/g, (token) => values[token] ?? '');
  const { ending, complaint } = await run(command, folder, settings.getHookTimeLimit, onStart);
  if (ending !== settings.getHookStatus) {
    const expected = typeof ending === 'number' ? ` in place of ${settings.getHookStatus}` : '';
    throw new Failure('get', `the GetHook ended with ${ending}${expected}${complaint && `: ${complaint}`}`);
  }
  const made = lstatSync(join(folder, program), { throwIfNoEntry: false });
  if (!made?.isFile()) throw new Failure('get', `the GetHook made no file ${program}`, '%cmd is where it belongs');
}

/** Its exit status, or in words what ended it; and the last line it wrote to stderr. */
async function run(
  command: string,
  cwd: string,
  limitSeconds: number,
  onStart: (end: () => void) => void,
): Promise<{ ending: number | string; complaint: string }> {
  const hook = startShell(command, cwd);
  const silence = new Promise((resolve) => hook.stderr.once('close', resolve));
  let isOver = false;
  onStart(() => isOver || signalSession(hook.pid, 'SIGKILL'));
  let said = '';
  hook.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('latin1')).slice(-4096);
  });
  let timedOut = false;
  const timer = setTimeout(
    () => {
      timedOut = true;
      signalSession(hook.pid, 'SIGKILL');
    },
    limitSeconds > 0 ? limitSeconds * 1000 : 2 ** 31 - 1,
  );
  const ending = await new Promise<number | string>((resolve) => {
    hook.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    hook.on('exit', (code, signal) =>
      resolve(timedOut ? `GetHookTimeLimit after ${limitSeconds} seconds` : (code ?? String(signal))),
    );
  });
  clearTimeout(timer);
  // Nothing that it started may change the program afterwards. On Windows its process id may be another's by now.
  if (process.platform !== 'win32') signalSession(hook.pid, 'SIGKILL');
  isOver = true;
  // Its last words may still be in the pipe; somebody who left the group would keep that open for ever.
  await Promise.race([silence, sleep(LAST_WORDS_MS, undefined, { ref: false })]);
  hook.stderr.destroy();
  const lastLine = said.trimEnd().split('\n').at(-1) ?? '';
  return { ending, complaint: lastLine.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_COMPLAINT_LENGTH) };
}

/** Throws Failure `get` where Windows has no cmd.exe. */
function startShell(command: string, cwd: string): ChildProcessByStdio<null, null, Readable> {
  const stdio: ['ignore', 'ignore', 'pipe'] = ['ignore', 'ignore', 'pipe'];
  if (process.platform !== 'win32') return spawn('/bin/sh', ['-c', command], { cwd, detached: true, stdio });
  const shell = findSystemProgram('cmd.exe');
  if (shell === undefined) throw new Failure('get', 'the GetHook needs System32\\cmd.exe, which is not there');
  const { file, args, options } = makeShellCommand(shell, command, true);
  // cmd.exe would look for programs in the current folder first, and there is what was fetched.
  const env = { ...process.env, NoDefaultCurrentDirectoryInExePath: '1' };
  return spawn(file, args, { cwd, stdio, env, ...options });
}
