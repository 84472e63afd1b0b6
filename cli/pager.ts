// Long output: through the operator's pager on a terminal, else straight on. What goes in has been made safe already.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Writable } from 'node:stream';

export interface Output {
  /** False once nobody reads any more. */
  isOpen(): boolean;
  write(text: string | Uint8Array): Promise<void>;
  end(): Promise<void>;
}

/** Opens the pager where there is a terminal to page on. The value of PAGER is taken apart at blanks, no shell sees it. */
export async function openOutput(): Promise<Output> {
  const [program = '', ...args] = (process.env.PAGER ?? 'less').split(/\s+/).filter((word) => word !== '');
  if (!process.stdout.isTTY || program === '' || program === 'cat') return toStream(process.stdout);
  // As git does: less ends by itself when all fits on the screen, lets our colours through, and leaves what it showed.
  const env = { LESS: 'FRX', ...process.env };
  const pager = spawn(program, args, { stdio: ['pipe', 'inherit', 'inherit'], env });
  const started = await Promise.race([once(pager, 'spawn').then(() => true), once(pager, 'error').then(() => false)]);
  if (!started) return toStream(process.stdout);
  const ended = once(pager, 'close');
  // Who leaves the pager early has seen enough.
  pager.stdin.on('error', () => {});
  const ignore = (): void => {};
  // Ctrl-C is the pager's.
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
