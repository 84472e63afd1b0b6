// npm run test:mutants: StrykerJS changes every operator, branch and text of the pure modules, one
// at a time, and their tests must fail. Arguments select files of these modules, by default all,
// which takes hours, because each change is a run of the tests.
import { spawn } from 'node:child_process';
import { globSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { makeEnvironment } from './test-environment.ts';
import { makeWorkingCopy } from './working-copy.ts';

/**
 * Not a dependency of the project, because nothing else needs it and it brings a hundred packages.
 */
const STRYKER = '@stryker-mutator/core@^10.1.1';

/** Modules without files, sockets or clocks, with their tests. */
const MODULES = [
  { files: 'cgi/protocol/*.ts', tests: ['server/protocol', 'server/protocol-record'] },
  { files: 'conf/*.ts', tests: ['server/conf'] },
];

const root = process.cwd();
const given = process.argv.slice(2).map((file) => relative(root, resolve(file)));
const plans = MODULES.map(({ files, tests }) => {
  const found = globSync(files, { cwd: root });
  return { tests, mutate: given.length === 0 ? found : found.filter((file) => given.includes(file)) };
});
const unknown = given.filter((file) => !plans.some(({ mutate }) => mutate.includes(file)));

if (unknown.length > 0) {
  process.stderr.write(`mutants: error: ${unknown.join(' ')}: not in ${MODULES.map(({ files }) => files).join(' ')}\n`);
  process.exitCode = 2;
} else {
  for (const plan of plans) if (plan.mutate.length > 0 && !(await mutate(plan))) process.exitCode = 1;
}

/** Runs Stryker in a copy of the project; false when a change was not noticed. */
async function mutate({ mutate, tests }: (typeof plans)[number]): Promise<boolean> {
  const environment = makeEnvironment(false);
  const copy = makeWorkingCopy(root, environment);
  const remove = (): void => {
    copy.remove();
    environment.remove();
  };
  process.once('SIGINT', () => {
    remove();
    process.exit(130);
  });
  try {
    const command = ['node', '--test', ...tests.map((name) => `test/${name}.test.ts`)].join(' ');
    const options = {
      mutate,
      testRunner: 'command',
      commandRunner: { command },
      plugins: [],
      reporters: ['clear-text'],
      // Stryker's own copy would resolve the project's packages, which are links, to the original.
      inPlace: true,
      concurrency: Math.ceil(availableParallelism() / 2),
      thresholds: { high: 100, low: 100, break: 100 },
      tempDirName: join(copy.path, '..', 'stryker'),
    };
    writeFileSync(join(copy.path, 'stryker.config.json'), JSON.stringify(options));
    const args = ['--yes', `--package=${STRYKER}`, 'stryker', 'run'];
    const child = spawn('npx', args, { cwd: copy.path, env: environment.variables, stdio: 'inherit' });
    const exitCode = await new Promise((done, fail) => child.on('error', fail).on('exit', done));
    return exitCode === 0;
  } finally {
    remove();
  }
}
