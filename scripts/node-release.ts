// Gets another Node release for the tests, from the npm registry into .cache/: the oldest one that this project supports.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const cache = join(import.meta.dirname, '..', '.cache');

/** The path of that release's binary, fetched once. Throws Error with npm's words when the registry does not give it. */
export function obtainNode(release: string): string {
  const name = `node-${process.platform}-${process.arch}`;
  const folder = join(cache, `node-${release}`);
  const binary = join(folder, 'node_modules', name, 'bin', 'node');
  if (existsSync(binary)) return binary;
  process.stderr.write(`webjob: getting Node ${release} for the tests (once)\n`);
  mkdirSync(folder, { recursive: true });
  // A folder with a package.json of its own is no part of the workspaces above it.
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  execFileSync(
    'npm',
    ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error', `${name}@${release}`],
    {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  return binary;
}
