// PaD files made by the built pad-make-script and run by every shell of this machine, each in a
// directory of its own.
import { execFileSync, type SpawnSyncOptions, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { part } from './thorough.ts';

export const MAKER = join(import.meta.dirname, '..', '..', 'dist', 'pad-make-script');

const TIME_LIMIT_MS = 60_000;

export interface Shell {
  name: string;
  /** Its absolute path and the options that make it behave like sh. */
  words: readonly [string, ...string[]];
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** latin1: one character for each byte. */
  stdout: string;
  stderr: string;
}

export type RunOptions = Pick<SpawnSyncOptions, 'cwd' | 'env' | 'input' | 'uid' | 'gid'>;

export interface Workshop {
  path: string;
  /** Writes a file from a string with one character for each byte, and returns its path. */
  add(name: string, content: string | Uint8Array, mode?: number): string;
  /** Makes a PaD file of these payloads, executable. */
  make(pad: string, payloads: readonly string[], options?: readonly string[]): string;
  folder(name: string): string;
  /** The contents of the directory, or of a subdirectory. */
  left(folder?: string): string[];
  remove(): void;
}

export function openWorkshop(): Workshop {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'webjob-pad-')));
  return {
    path,
    add: (name, content, mode = 0o644) => {
      writeFileSync(join(path, name), content, { mode, encoding: 'latin1' });
      return join(path, name);
    },
    make: (pad, payloads, options = []) => makePad(join(path, pad), payloads, options),
    folder: (name) => {
      mkdirSync(join(path, name), { recursive: true });
      return join(path, name);
    },
    left: (folder = '.') => readdirSync(join(path, folder)).sort(),
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

function makePad(path: string, payloads: readonly string[], options: readonly string[]): string {
  const out = openSync(path, 'w', 0o755);
  try {
    execFileSync(process.execPath, [MAKER, ...options, '--', ...payloads], { stdio: ['ignore', out, 'inherit'] });
  } finally {
    closeSync(out);
  }
  return path;
}

/** The path of a program in PATH. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/**
 * The shells of this machine. Throws Error without dash or bash, because one shell alone proves
 * nothing.
 */
export function findShells(): Shell[] {
  const usual: [program: string, ...words: string[]][] = [['dash'], ['bash'], ['busybox', 'sh']];
  const others: typeof usual = [
    ['bash', '--posix'],
    ['mksh'],
    ['ksh93'],
    ['yash'],
    ['posh'],
    ['zsh', '--emulate', 'sh'],
  ];
  const shells = [...usual, ...part(others, 0)].flatMap(([program, ...words]): Shell[] => {
    const path = findProgram(program);
    return path === undefined ? [] : [{ name: [program, ...words].join(' '), words: [path, ...words] }];
  });
  for (const needed of ['dash', 'bash']) {
    if (!shells.some(({ name }) => name === needed)) throw new Error(`the tests of PaD files need ${needed}`);
  }
  return shells;
}

/**
 * The two common shells try everything; the others share the values, so that each is tried in a
 * third of them.
 */
export function share<T>(values: readonly T[], index: number): readonly T[] {
  return index < 2 ? values : values.filter((_, at) => (at + index) % 3 === 0);
}

export function run(words: readonly string[], options: RunOptions = {}): Ended {
  const [program = '', ...args] = words;
  const { status, signal, stdout, stderr, error } = spawnSync(program, args, {
    ...options,
    timeout: TIME_LIMIT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error) throw error;
  return { code: status, signal, stdout: stdout.toString('latin1'), stderr: stderr.toString('latin1') };
}

/** What a PaD file needs on every machine, whatever it decodes and verifies with. */
const COMMON_TOOLS = ['sed', 'tail', 'wc', 'mkdir', 'chmod', 'ln', 'mv', 'rm', 'cat', 'tar', 'printf', 'sh'];

/**
 * A directory for PATH with only these tools and the common ones. Scripts are given as texts by
 * their names.
 */
export function makeFarm(
  workshop: Workshop,
  name: string,
  tools: readonly string[],
  others: Record<string, string> = {},
) {
  const farm = workshop.folder(name);
  for (const tool of [...COMMON_TOOLS, ...tools]) {
    const path = findProgram(tool);
    if (path === undefined) throw new Error(`${tool} is not on this machine`);
    symlinkSync(path, join(farm, tool));
  }
  for (const [tool, text] of Object.entries(others)) writeFileSync(join(farm, tool), text, { mode: 0o755 });
  return farm;
}

/** A directory for PATH in which every tool is busybox; undefined without busybox. */
export function makeBusyboxFarm(workshop: Workshop): string | undefined {
  const busybox = findProgram('busybox');
  if (busybox === undefined) return undefined;
  const farm = workshop.folder('busybox');
  for (const applet of run([busybox, '--list']).stdout.trim().split('\n')) symlinkSync(busybox, join(farm, applet));
  return farm;
}

/** A PATH for one program of a test, in the environment of this process. */
export const withPath = (path: string): NodeJS.ProcessEnv => ({ ...process.env, PATH: path });
