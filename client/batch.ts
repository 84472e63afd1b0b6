// Batches on systems without a shell (docs/protocol.md, section 12). The script from the server is
// fetched and its output delivered like that of any program, but this client interprets it and
// starts a webjob for each assignment in it.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { print, say } from '../cli/streams.ts';
import { formatEnded, type Order, parseBatch } from '../fleet/batch-script.ts';
import type { OrderCheck } from './assignment.ts';
import { EXIT_CODES, Failure, warn } from './failure.ts';
import { ASSIGNMENT_VARIABLE } from './record.ts';
import { type ClientSettings, readSettings } from './settings.ts';

/** The default of BatchCommand. */
export const USUAL_BATCH = 'batch';

/**
 * The command line of this program. In a standalone executable, execPath and argv[1] are the same
 * file.
 */
const ownWords = (): string[] => [...new Set([process.execPath, process.argv[1] ?? process.execPath])];

/** The command line with which webjob runs a batch that it has fetched. */
export function batchRunner(): string[] {
  return [...ownWords(), '--run-batch'];
}

/**
 * Runs the assignments of a script one after the other, skips refused ones, and prints the result
 * of each. Throws Failure `run` for a file that is not a batch.
 */
export async function runBatch(path: string): Promise<number> {
  const conf = process.env.WEBJOB_FILE ?? '';
  if (conf === '') throw new Failure('usage', 'a batch needs settings from a file, not from stdin');
  const orders = readOrders(path);
  const check = await prepareCheck(readSettings(conf));
  let code: number = EXIT_CODES.ok;
  for (const order of orders) {
    const isTaken = !check || isAccepted(order, check.take);
    if (!isTaken) code = EXIT_CODES.get;
    await print(formatEnded(order, isTaken ? await runOrder(conf, order) : EXIT_CODES.get));
  }
  return code;
}

/**
 * Warns about the assignments of a batch that must not run, as far as this can be decided without
 * the server, and returns their number. Throws Failure `run` for a file that is not a batch.
 */
export async function countRefused(settings: ClientSettings, path: string): Promise<number> {
  const check = await prepareCheck(settings);
  return check ? readOrders(path).filter((order) => !isAccepted(order, check.check)).length : 0;
}

async function prepareCheck(settings: ClientSettings): Promise<OrderCheck | undefined> {
  return settings.dsvVerifyManifest ? (await import('./assignment.ts')).prepareOrders(settings, new Date()) : undefined;
}

function isAccepted(order: Order, check: (order: Order) => void): boolean {
  try {
    check(order);
    return true;
  } catch (error) {
    if (!(error instanceof Failure) || error.kind !== 'get') throw error;
    warn(`assignment ${order.id} is refused: ${error.message}`);
    for (const hint of error.hints) say(`webjob: hint: ${hint}`);
    return false;
  }
}

function readOrders(path: string): Order[] {
  try {
    return parseBatch(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Failure('run', `the batch: ${(error as Error).message}`);
  }
}

/** Runs an assignment; returns the exit code of its webjob as a shell would report it. */
async function runOrder(conf: string, { id, due, command, args }: Order): Promise<number> {
  const [file = '', ...words] = ownWords();
  const env = { ...process.env, [ASSIGNMENT_VARIABLE]: `${id}@${due}` };
  return await new Promise((resolve) => {
    const kid = spawn(file, [...words, '-e', '-f', conf, command, ...args], {
      env,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    kid.on('error', (error: NodeJS.ErrnoException) => {
      warn(`assignment ${id} cannot be run: ${error.code}`);
      resolve(126);
    });
    kid.on('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}
