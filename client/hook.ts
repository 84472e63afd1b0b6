// GetHook: the command that makes the program out of what was fetched, and whose failure is the job's (docs/protocol.md, section 7).
import { spawn } from 'node:child_process';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from './failure.ts';
import { signalSession } from './processes.ts';
import type { ClientSettings } from './settings.ts';

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
  const values: Record<string, string> = { '%file': `./${fetched}`, '%cmd': `./${program}`, '%%': '%' };
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
  const [shell, option] = process.platform === 'win32' ? ['cmd.exe', '/c'] : ['/bin/sh', '-c'];
  const hook = spawn(shell, [option, command], { cwd, detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
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
  // Nothing that it started may change the program afterwards.
  signalSession(hook.pid, 'SIGKILL');
  isOver = true;
  // Its last words may still be in the pipe; somebody who left the group would keep that open for ever.
  await Promise.race([silence, sleep(LAST_WORDS_MS, undefined, { ref: false })]);
  hook.stderr.destroy();
  const lastLine = said.trimEnd().split('\n').at(-1) ?? '';
  return { ending, complaint: lastLine.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_COMPLAINT_LENGTH) };
}
