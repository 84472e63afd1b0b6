// Builds dist/webjob-<platform>-<arch>: the client and the Node that runs this script in one file,
// for machines without Node (Node's single executable application). dist/ must be built before.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');

// Node uses this name for the blob, and looks for the fuse before it looks for the blob.
const BLOB = 'NODE_SEA_BLOB';
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

/**
 * Writes the executable and returns its path. Throws Error with the messages of the tool that
 * failed.
 */
export function buildExecutable(): string {
  const suffix = process.platform === 'win32' ? '.exe' : '';
  const target = join(dist, `webjob-${process.platform}-${process.arch}${suffix}`);
  const folder = mkdtempSync(join(tmpdir(), 'webjob-executable-'));
  try {
    const blob = makeBlob(folder);
    // Made under a temporary name, so that an existing executable is always complete and may be
    // running.
    const made = join(folder, 'webjob');
    copyFileSync(process.execPath, made);
    chmodSync(made, 0o755);
    if (process.platform === 'darwin') run('codesign', ['--remove-signature', made]);
    inject(made, blob);
    if (process.platform === 'darwin') run('codesign', ['--sign', '-', made]);
    checkIsClosed(made);
    const next = join(dist, `.webjob.${process.pid}`);
    copyFileSync(made, next);
    renameSync(next, target);
    return target;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The Node in it accepts no options from outside, and never opens a debugger. */
const CLOSED = { execArgv: ['--disable-sigusr1'], execArgvExtension: 'none' };

function makeBlob(folder: string): string {
  const output = join(folder, 'webjob.blob');
  const config = join(folder, 'sea.json');
  const main = join(dist, 'webjob');
  writeFileSync(config, JSON.stringify({ main, output, disableExperimentalSEAWarning: true, ...CLOSED }));
  run(process.execPath, ['--experimental-sea-config', config]);
  return output;
}

function inject(executable: string, blob: string): void {
  const postject = join(root, 'node_modules', 'postject', 'dist', 'cli.js');
  const segment = process.platform === 'darwin' ? ['--macho-segment-name', 'NODE_SEA'] : [];
  run(process.execPath, [postject, executable, BLOB, blob, '--sentinel-fuse', FUSE, ...segment]);
}

/** A Node that does not know the settings of CLOSED ignores them silently. */
function checkIsClosed(executable: string): void {
  const env = { ...process.env, NODE_OPTIONS: '--no-such-option' };
  if (spawnSync(executable, ['--version'], { env }).status !== 0)
    throw new Error(`an executable with Node ${process.version} would obey NODE_OPTIONS: build it with Node 24.21`);
}

/** Runs a tool, and prints its messages only when it fails. */
function run(command: string, args: string[]): void {
  try {
    execFileSync(command, args, { stdio: 'pipe' });
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: Buffer; stderr?: Buffer };
    throw new Error(`${command} ${args[0]} failed: ${stdout ?? ''}${stderr ?? ''}`, { cause: error });
  }
}

if (import.meta.main) {
  const path = buildExecutable();
  process.stdout.write(`${path}  ${(statSync(path).size / 1024 ** 2).toFixed(0)} MB\n`);
}
