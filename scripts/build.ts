// Builds dist/: one self-contained CommonJS file for every program. A `.cgi` is copied alone into a
// cgi-bin, so it must not need other files, and an ES module would cost every request 8 ms more.
import { chmodSync, globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

/** The texts of the files that webjobctl installs, as listed in admin/site/shipped.ts. */
const shipped = Object.fromEntries(
  [...readFileSync(join(root, 'admin', 'site', 'shipped.ts'), 'utf8').matchAll(/^ {2}\| '(.+)'/gm)].map(
    ([, file = '']) => [file, readFileSync(join(root, file), 'utf8')],
  ),
);
const manuals = Object.fromEntries(
  globSync(['docs/man/*', 'completions/*'], { cwd: root })
    .sort()
    .map((file) => [file, readFileSync(join(root, file), 'utf8')]),
);
const SHIPPED = {
  WEBJOB_SHIPPED: JSON.stringify(shipped),
  WEBJOB_MANUALS: JSON.stringify(gzipSync(JSON.stringify(manuals), { level: 9 }).toString('base64')),
};
const VERSION = { WEBJOB_VERSION: JSON.stringify(version) };

/**
 * For the script that httpd starts for every request, the client that cron starts, and webjobctl:
 * comments and indentation are removed, because Node parses them each time; `node bench/request.ts`
 * shows the cost. Names stay, for readable stack traces.
 */
const PARSED_EVERY_TIME = { minifyWhitespace: true, lineLimit: 120 } as const;

/** The options of every build. */
const COMMON = {
  write: false,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  minifySyntax: true,
  loader: { '.sh': 'text' },
  legalComments: 'none',
  logLevel: 'warning',
} as const satisfies BuildOptions;

/** A longer text is stored compressed, because Node reads all of a file at each start. */
const LONG_TEXT = 64 * 1024;

/**
 * Stores packages that a program loads with `await import()` as strings, which are compiled on
 * demand: Node scans every function of a file at its start, but not strings. The values are the
 * clauses by which the program imports from each.
 */
const asTexts = (packages: Readonly<Record<string, string>>): Plugin => ({
  name: 'as-texts',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^[^./]/ }, ({ path }) => (packages[path] ? { path, namespace: 'text' } : undefined));
    onLoad({ filter: /.*/, namespace: 'text' }, async ({ path }) => {
      const { outputFiles } = await build({
        ...COMMON,
        ...PARSED_EVERY_TIME,
        stdin: { contents: `export ${packages[path]} from '${path}'`, resolveDir: root },
      });
      const names = ['exports', 'require', 'module'];
      const text = outputFiles[0]?.text ?? '';
      const packed = JSON.stringify(gzipSync(text, { level: 9 }).toString('base64'));
      const kept =
        text.length < LONG_TEXT
          ? JSON.stringify(text)
          : `require('node:zlib').gunzipSync(Buffer.from(${packed},'base64')).toString()`;
      const code = [kept, JSON.stringify(names), JSON.stringify({ filename: path })];
      return { contents: `require('node:vm').compileFunction(${code.join()})(${names.join()});` };
    });
  },
});

/** The imports from the package that seals and opens streams. */
const SEALING = { 'age-encryption': '{ Encrypter, Decrypter }' };
/** The imports from the packages that talk to PostgreSQL. */
const POSTGRES = { pg: '{ Client }', 'pg-copy-streams': '{ from }' };

/** The imports from the package that sends mail. */
const MAILING = { nodemailer: '{ createTransport }' };

const PROGRAMS = [
  { source: 'cgi/main.ts', target: 'nph-webjob.cgi', more: PARSED_EVERY_TIME },
  { source: 'cgi/resident.ts', target: 'nph-webjob-resident.cjs' },
  {
    source: 'client/main.ts',
    target: 'webjob',
    more: { ...PARSED_EVERY_TIME, plugins: [asTexts({ commander: '*', '@noble/ed25519': '*', ...SEALING })] },
  },
  { source: 'pad/main.ts', target: 'pad-make-script' },
  { source: 'sign/main.ts', target: 'webjob-sign' },
  { source: 'view/main.ts', target: 'webjob-view.cgi', more: { ...PARSED_EVERY_TIME } },
  {
    source: 'admin/main.ts',
    target: 'webjobctl',
    more: {
      ...PARSED_EVERY_TIME,
      define: { ...VERSION, ...SHIPPED },
      plugins: [asTexts({ ...SEALING, ...MAILING, ...POSTGRES })],
    },
  },
];

/**
 * On SIGUSR1 Node opens its debugger on a port that every user of the machine can reach, and
 * thereby gives away the rights of the process. This handler, the first line of every program,
 * replaces that for all threads. It does not cover the 20 ms in which Node starts; only a
 * command-line option of Node would, and Node 20 rejects one that it does not know.
 */
const NO_DEBUGGER = "process.on('SIGUSR1', () => {}); // Node would open its debugger\n";

/**
 * At its end Node frees all its memory piece by piece, although the system would do it at once: a
 * twentieth of the cost of a short program. This event occurs when nothing is pending any longer,
 * so all output has been written.
 */
const QUICK_END = "process.once('beforeExit', () => process.exit()); // Node would clean up\n";

mkdirSync(dist, { recursive: true });
// Independent of the umask, because web users run the programs.
chmodSync(dist, 0o755);
makeCompiled(join(dist, '.compiled'));
// Without it, Node would read these files as ES modules because of the package.json above.
replaceFile(join(dist, 'package.json'), '{ "type": "commonjs" }\n', 0o644);
for (const { source, target, more } of PROGRAMS) {
  const built = await build({
    ...COMMON,
    entryPoints: [join(root, source)],
    define: VERSION,
    ...more,
  });
  const code = built.outputFiles[0]?.text.replace('"use strict";\n', '') ?? '';
  const isProgram = !target.endsWith('.cjs');
  const banner = `'use strict'; // ${target} ${version}, built from TypeScript: change ${source}\n`;
  const outfile = join(dist, target);
  const start = isProgram ? `#!/usr/bin/env node\n${banner}${NO_DEBUGGER}${QUICK_END}` : banner;
  replaceFile(outfile, start + code, isProgram ? 0o755 : 0o644);
}

/** Makes the directory in which Node keeps the compiled webjobctl: bin/webjobctl uses it. */
function makeCompiled(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  chmodSync(folder, 0o755);
}

/**
 * Replaces a file atomically, because a program that is started meanwhile must not be an empty
 * file, which would end at once with success.
 */
function replaceFile(path: string, text: string, mode: number): void {
  const next = join(dirname(path), `.${basename(path)}.${process.pid}`);
  writeFileSync(next, text);
  chmodSync(next, mode);
  renameSync(next, path);
}
