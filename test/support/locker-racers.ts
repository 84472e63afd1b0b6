// Starts depositors (locker-depositor.ts) as processes and communicates with them.
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Order, Result } from './locker-depositor.ts';

export interface Racer {
  pid: number;
  /** Sends an order; resolves with its result. One at a time. */
  deposit(order: Order): Promise<Result>;
  /** Ends the process, wherever it is. */
  stop(): Promise<void>;
}

const SCRIPT = join(import.meta.dirname, 'locker-depositor.ts');

/** Starts one and waits until it accepts orders. `wrapper` is a program that runs it. */
export async function startRacer(wrapper: readonly string[] = []): Promise<Racer> {
  const [program = '', ...args] = [...wrapper, process.execPath, SCRIPT];
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.on('error', () => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const line = await lines.next();
    if (line.done) throw new Error('the depositor ended');
    return line.value;
  };
  if ((await next()) !== 'ready') throw new Error('the depositor does not take orders');
  return {
    pid: child.pid ?? 0,
    async deposit(order) {
      child.stdin.write(`${JSON.stringify(order)}\n`);
      return JSON.parse(await next());
    },
    stop: () => end(child),
  };
}

/** Starts several at once. */
export function startRacers(count: number): Promise<Racer[]> {
  return Promise.all(Array.from({ length: count }, () => startRacer()));
}

function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.on('exit', () => resolve());
    child.stdin?.end();
  });
}
