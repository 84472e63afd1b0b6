// The built webjobctl as an operator runs it: a process of its own, in a folder that the web user may enter, with a Node that it may start.
import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, linkSync, mkdirSync, realpathSync, rmSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { obtainHttpd } from '../scripts/httpd-package.ts';
import { makeRoot } from './deployment-httpd.ts';

const WEBJOBCTL = join(import.meta.dirname, '..', 'dist', 'webjobctl');
const TIME_LIMIT_MS = 120_000;

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface OperatorOptions {
  input?: string;
  /** Over the environment; undefined takes a variable away. */
  environment?: Record<string, string | undefined>;
  cwd?: string;
  /** Another user's uid and gid; only root may say so. */
  user?: { uid: number; gid: number };
  /** Another program than dist/webjobctl. */
  program?: string;
}

/** Runs webjobctl to its end, whatever its exit code. */
export function runWebjobctl(args: readonly string[], options: OperatorOptions = {}): Promise<Ended> {
  const { libraryPath } = obtainHttpd();
  const child = spawn(process.execPath, [options.program ?? WEBJOBCTL, ...args], {
    env: { ...process.env, ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }), ...options.environment },
    stdio: 'pipe',
    timeout: TIME_LIMIT_MS,
    killSignal: 'SIGKILL',
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    ...options.user,
  });
  const chunks: { out: Buffer[]; err: Buffer[] } = { out: [], err: [] };
  child.stdout.on('data', (chunk: Buffer) => chunks.out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => chunks.err.push(chunk));
  // It may end without having read.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      const text = (parts: Buffer[]): string => Buffer.concat(parts).toString();
      resolve({ code, stdout: text(chunks.out), stderr: text(chunks.err) });
    });
  });
}

export interface Ground {
  /** An empty folder that anybody may enter. */
  root: string;
  /** A Node that the web user may start. */
  node: string;
  /** webjobctl, which must end with this code; its stdout. */
  run(code: number, ...args: string[]): Promise<string>;
  remove(): void;
}

export function makeGround(): Ground {
  const root = makeRoot();
  const node = join(root, 'bin', 'node');
  mkdirSync(dirname(node), { mode: 0o755 });
  try {
    linkSync(realpathSync(process.execPath), node);
  } catch {
    copyFileSync(process.execPath, node);
  }
  return {
    ...{ root, node },
    run: async (code, ...args) => {
      const ended = await runWebjobctl(args, { cwd: root });
      if (ended.code === code) return ended.stdout;
      throw new Error(`webjobctl ${args.join(' ')}: ${ended.code}, not ${code}: ${ended.stdout}${ended.stderr}`);
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}

/** One JSON value a line. */
export function parseLines<Type = Record<string, unknown>>(text: string): Type[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Type);
}

/** Whether a program is in PATH or where httpd's tools are. */
export function hasProgram(name: string): boolean {
  const folders = `${process.env.PATH}:/usr/sbin:/sbin`.split(delimiter);
  return folders.some((folder) => existsSync(join(folder, name)));
}
