// Long output: through the operator's pager on a terminal, otherwise directly. The text must
// already be safe for a terminal.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Writable } from 'node:stream';

export interface Output {
  /** Whether anyone still reads the output. */
  isOpen(): boolean;
  write(text: string | Uint8Array): Promise<void>;
  end(): Promise<void>;
}

/**
 * Opens the pager when stdout is a terminal. The value of PAGER is split at spaces, without a
 * shell.
 */
export async function openOutput(): Promise<Output> {
  const [program = '', ...args] = (process.env.PAGER ?? 'less').split(/\s+/).filter((word) => word !== '');
  if (!process.stdout.isTTY || program === '' || program === 'cat') return toStream(process.stdout);
  // As in git: less exits when everything fits on the screen, passes colours on, and does not clear
  // the screen.
  const env = { LESS: 'FRX', ...process.env };
  const pager = spawn(program, args, { stdio: ['pipe', 'inherit', 'inherit'], env });
  const started = await Promise.race([once(pager, 'spawn').then(() => true), once(pager, 'error').then(() => false)]);
  if (!started) return toStream(process.stdout);
  const ended = once(pager, 'close');
  // An operator who leaves the pager early has seen enough.
  pager.stdin.on('error', () => {});
  const ignore = (): void => {};
  // Ctrl-C is for the pager.
  process.on('SIGINT', ignore);
  const stream = toStream(pager.stdin);
  return {
    isOpen: () => pager.stdin.writable,
    write: (text) =>
      pager.stdin.writable ? Promise.race([stream.write(text), ended.then(() => {})]) : Promise.resolve(),
    async end() {
      pager.stdin.end();
      await ended;
      process.off('SIGINT', ignore);
    },
  };
}

function toStream(stream: Writable): Output {
  return {
    isOpen: () => true,
    async write(text) {
      if (!stream.write(text)) await once(stream, 'drain');
    },
    end: async () => {},
  };
}
