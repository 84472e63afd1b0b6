// GetHook: the command that makes the program from the fetched file. If the hook fails, the job
// fails (docs/protocol.md, section 7).
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
 * Runs the hook in the directory of `fetched`, where it must leave the program as the file
 * `program`. `onStart` gets a function that kills the hook if webjob ends first. Throws Failure
 * `get`.
 */
export async function runGetHook(
  settings: ClientSettings,
  folder: string,
  fetched: string,
  program: string,
  onStart: (end: () => void) => void,
): Promise<void> {
  // Names of programs contain no shell metacharacters, but a name that begins with a hyphen would
  // be an option, and cmd.exe would take the text after a slash for an option.
  const here = process.platform === 'win32' ? '.\\' : './';
  const values: Record<string, string> = { '%file': here + fetched, '%cmd': here + program, '%%': '%' };
  const command = settings.getHookCommandLine.replace(/%(?:%|cmd|file)/g, (token) => values[token] ?? '');
  const { ending, complaint } = await run(command, folder, settings.getHookTimeLimit, onStart);
  if (ending !== settings.getHookStatus) {
    const expected = typeof ending === 'number' ? ` instead of ${settings.getHookStatus}` : '';
    throw new Failure('get', `the GetHook ended with ${ending}${expected}${complaint && `: ${complaint}`}`);
  }
  const made = lstatSync(join(folder, program), { throwIfNoEntry: false });
  if (!made?.isFile())
    throw new Failure(
      'get',
      `the GetHook made no file ${program}`,
      'GetHookCommandLine must write the program to %cmd',
    );
}

/**
 * Returns the exit status, or a description of what ended the hook, and the last line that the hook
 * wrote to stderr.
 */
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
  // No process that the hook started may change the program afterwards. On Windows, the id of the
  // hook may already belong to another process.
  if (process.platform !== 'win32') signalSession(hook.pid, 'SIGKILL');
  isOver = true;
  // The last output of the hook may still be in the pipe, which a process that left the group would
  // keep open forever.
  await Promise.race([silence, sleep(LAST_WORDS_MS, undefined, { ref: false })]);
  hook.stderr.destroy();
  const lastLine = said.trimEnd().split('\n').at(-1) ?? '';
  return { ending, complaint: lastLine.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_COMPLAINT_LENGTH) };
}

/** Starts the shell. Throws Failure `get` on Windows without cmd.exe. */
function startShell(command: string, cwd: string): ChildProcessByStdio<null, null, Readable> {
  const stdio: ['ignore', 'ignore', 'pipe'] = ['ignore', 'ignore', 'pipe'];
  if (process.platform !== 'win32') return spawn('/bin/sh', ['-c', command], { cwd, detached: true, stdio });
  const shell = findSystemProgram('cmd.exe');
  if (shell === undefined) throw new Failure('get', 'the GetHook requires System32\\cmd.exe, which is missing');
  const { file, args, options } = makeShellCommand(shell, command, true);
  // Without this variable, cmd.exe would look for programs first in the current directory, which
  // contains the fetched file.
  const env = { ...process.env, NoDefaultCurrentDirectoryInExePath: '1' };
  return spawn(file, args, { cwd, stdio, env, ...options });
}
