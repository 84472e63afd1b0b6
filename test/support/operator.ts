// The built webjobctl as an operator runs it, in a directory that the web user may enter, with a
// Node that the web user may start.
import { copyFileSync, existsSync, linkSync, mkdirSync, realpathSync, rmSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { obtainHttpd } from '../../scripts/httpd-package.ts';
import { makeRoot } from './deployment-httpd.ts';
import { runProgram, WEBJOBCTL } from './program-runs.ts';

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface OperatorOptions {
  input?: string;
  /** Changes to the environment; undefined removes a variable. */
  environment?: Record<string, string | undefined>;
  cwd?: string;
  /** Another user's uid and gid; only for root. */
  user?: { uid: number; gid: number };
  /** Another program than dist/webjobctl. */
  program?: string;
}

/** Runs webjobctl to its end, whatever its exit code. */
export async function runWebjobctl(args: readonly string[], options: OperatorOptions = {}): Promise<Ended> {
  const { libraryPath } = obtainHttpd();
  const environment = {
    ...process.env,
    ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
    ...options.environment,
  };
  const { code, stdout, stderr } = await runProgram(options.program ?? WEBJOBCTL, args, { ...options, environment });
  return { code, stdout: stdout.toString(), stderr: stderr.toString() };
}

export interface Ground {
  /** An empty directory that everyone may enter. */
  root: string;
  /** A Node that the web user may start. */
  node: string;
  /** Runs webjobctl, which must end with this code; returns its stdout. */
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
    root,
    node,
    run: async (code, ...args) => {
      const ended = await runWebjobctl(args, { cwd: root });
      if (ended.code === code) return ended.stdout;
      throw new Error(`webjobctl ${args.join(' ')}: ${ended.code}, not ${code}: ${ended.stdout}${ended.stderr}`);
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}

/** One JSON value for each line. */
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
