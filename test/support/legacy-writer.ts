// The other side of a locker that is shared with original servers: legacy-writer.pl as a process
// for each writer.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Site } from '../../scripts/site.ts';
import { findWebUser } from './tree.ts';

export type Lengths = Record<'out' | 'err' | 'env', number>;

/** Steps of an upload before which a legacy writer can be stopped. */
export type Step = 'lock' | 'look' | 'write' | 'middle' | 'ready' | 'refuse';

export interface LegacyWriter {
  /** Stores and logs an upload as `name`; resolves with its status. */
  put(name: string, jobId: string, lengths: Lengths): Promise<number>;
  /** Begins one and resolves when it has reached the step. */
  putUntil(step: Step, name: string, jobId: string, lengths: Lengths): Promise<void>;
  /** Lets it continue; resolves with its status. */
  finish(): Promise<number>;
  end(): Promise<void>;
}

/** The content of an upload's stream: bytes that identify it. The same as in legacy-writer.pl. */
export function contentOf(jobId: string, stream: keyof Lengths, length: number): string {
  const line = `${jobId} ${stream}\n`;
  return line.repeat(1 + Math.ceil(length / line.length)).slice(0, length);
}

/** Starts a writer with the rights of the web server. */
export function startLegacyWriter(site: Site, perl: string): LegacyWriter {
  // The web user may not be able to reach the checkout of the tests.
  const script = join(site.root, 'legacy-writer.pl');
  const source = readFileSync(join(import.meta.dirname, 'legacy-writer.pl'));
  if (!existsSync(script)) writeFileSync(script, source, { mode: 0o644 });
  const child = spawn(perl, [script, site.incoming, site.logFile], {
    stdio: ['pipe', 'pipe', 'inherit'],
    cwd: '/',
    ...findWebUser(),
  });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const say = async (line: string): Promise<string> => {
    child.stdin.write(`${line}\n`);
    const { value, done } = await answers.next();
    if (done) throw new Error('the legacy writer ended');
    return value;
  };
  const plan = (name: string, jobId: string, { out, err, env }: Lengths, stop: string): string =>
    `${name} ${jobId} ${out} ${err} ${env} ${stop}`;
  return {
    put: async (name, jobId, lengths) => Number(await say(plan(name, jobId, lengths, '-'))),
    putUntil: async (step, name, jobId, lengths) => {
      const said = await say(plan(name, jobId, lengths, step));
      if (said !== step) throw new Error(`the legacy writer did not come to ${step}: ${said}`);
    },
    finish: async () => Number(await say('go')),
    end: () => end(child),
  };
}

function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.stdin?.end();
  // A writer that waits for a lock would not see the end of its input.
  setTimeout(() => child.kill('SIGKILL'), 5_000).unref();
  return ended;
}
