// npm run build:npm: makes the npm packages dist/webjob-VERSION.tgz and
// dist/node-cgi-compat-VERSION.tgz. Both contain JavaScript, because Node runs no TypeScript below
// node_modules, and have no dependencies.
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const readJson = (path: string): Record<string, unknown> => JSON.parse(readFileSync(join(root, path), 'utf8'));

const CLIENT_PROGRAMS = ['webjob', 'webjob-sign', 'pad-make-script'];
const CLIENT_MANUALS = ['webjob.1', 'webjob.conf.5', 'webjob-sign.1', 'pad-make-script.1'];

/** Writes the client's package into a directory. `npm run build` must have run. */
export function stageClient(folder: string): void {
  const { version, license, engines } = readJson('package.json');
  for (const name of ['bin', 'man', 'completions', 'examples']) mkdirSync(join(folder, name), { recursive: true });
  for (const name of CLIENT_PROGRAMS) {
    copyFileSync(join(dist, name), join(folder, 'bin', name));
    chmodSync(join(folder, 'bin', name), 0o755);
  }
  for (const name of CLIENT_MANUALS) copyFileSync(join(root, 'docs/man', name), join(folder, 'man', name));
  cpSync(join(root, 'completions'), join(folder, 'completions'), { recursive: true });
  copyFileSync(join(root, 'conf/webjob.conf'), join(folder, 'examples/webjob.conf'));
  copyFileSync(join(root, 'packaging/npm/README.md'), join(folder, 'README.md'));
  copyFileSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
  writeJson(join(folder, 'package.json'), {
    name: 'webjob',
    version,
    description: 'WebJob client: run programs from a central web server and upload their output as evidence',
    keywords: ['webjob', 'incident-response', 'forensics', 'dfir', 'remote-administration', 'cron'],
    license,
    engines,
    bin: Object.fromEntries(CLIENT_PROGRAMS.map((name) => [name, `bin/${name}`])),
    man: CLIENT_MANUALS.map((name) => `man/${name}`),
  });
}

/**
 * Writes node-cgi-compat as JavaScript with types into a directory. Throws Error with the messages
 * of tsc.
 */
export function stageLibrary(folder: string): void {
  const tsc = join(root, 'node_modules/.bin/tsc');
  execFileSync(tsc, ['--project', join(root, 'packaging/npm/tsconfig.json'), '--outDir', folder], { encoding: 'utf8' });
  const {
    private: _private,
    scripts: _scripts,
    exports: entries,
    ...manifest
  } = readJson('cgi/node-cgi-compat/package.json');
  const built = Object.entries(entries as Record<string, string>).map(([name, source]) => {
    const stem = source.replace(/\.ts$/, '');
    return [name, { types: `${stem}.d.ts`, default: `${stem}.js` }];
  });
  writeJson(join(folder, 'package.json'), { ...manifest, exports: Object.fromEntries(built) });
  for (const name of ['cgi/node-cgi-compat/README.md', 'LICENSE'])
    copyFileSync(join(root, name), join(folder, basename(name)));
}

/** Packs both into a directory and returns the paths of the archives. */
export function buildNpmPackages(target = dist): string[] {
  return [stageClient, stageLibrary].map((stage) => {
    const folder = mkdtempSync(join(tmpdir(), 'webjob-npm-'));
    try {
      stage(folder);
      const words = ['pack', '--json', '--offline', '--pack-destination', target];
      const [packed] = JSON.parse(execFileSync('npm', words, { cwd: folder, encoding: 'utf8' }));
      return join(target, packed.filename);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
}

if (import.meta.main) for (const file of buildNpmPackages()) process.stdout.write(`${file}\n`);
