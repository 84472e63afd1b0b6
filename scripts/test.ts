// npm test: types and style, build, an httpd, then every test. Arguments are test files to run in place of all.
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { installTestPrograms } from './debian.ts';
import { obtainHttpd } from './httpd-package.ts';

const root = join(import.meta.dirname, '..');
const files = process.argv.length > 2 ? process.argv.slice(2) : globSync('test/**/*.test.ts', { cwd: root }).sort();

run('types', 'tsc', '--noEmit');
run('style', 'biome', 'check', '--error-on-warnings', '.');
run('build', 'node', 'scripts/build.ts');
installTestPrograms();
process.stderr.write(`webjob: httpd: ${obtainHttpd().binary}\n`);
run('tests', 'node', '--test', '--test-concurrency=3', '--test-timeout=1200000', '--test-reporter=spec', ...files);

/** npm has put node_modules/.bin in front of PATH, so `node` is the project's own. */
function run(stage: string, command: string, ...args: string[]): void {
  process.stderr.write(`webjob: ${stage}\n`);
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], timeout: 3_600_000 });
  if (result.status === 0) return;
  process.stderr.write(`webjob: error: ${stage} failed\n`);
  process.exit(1);
}
