// Builds dist/: one self-contained CommonJS file for every program. A `.cgi` is copied alone into a cgi-bin, so nothing may be left
// beside it, and an ES module would cost every request 8 ms more.
import { chmodSync, globSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

/** The texts that webjobctl installs, of the files that admin/site/shipped.ts names. */
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
 * The script that httpd starts for every request, the client that cron starts, and webjobctl have their comments and indentation
 * removed: Node parses them each time, and `node bench/request.ts` shows what that costs. Their names stay, so that a stack trace says
 * where.
 */
const PARSED_EVERY_TIME = { minifyWhitespace: true, lineLimit: 120 } as const;

/** What every build has in common. */
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

/** A longer text is kept compressed: Node reads all of a file each time it starts. */
const LONG_TEXT = 64 * 1024;

/**
 * Keeps packages that a program loads with `await import()` as texts, which are compiled on that occasion: Node looks
 * through every function of a file at its start, and at a string it does not. Of each, what the program takes of it.
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

/** What is taken of the package that seals and opens streams. */
const SEALING = { 'age-encryption': '{ Encrypter, Decrypter }' };
/** What is taken of those that speak with PostgreSQL. */
const POSTGRES = { pg: '{ Client }', 'pg-copy-streams': '{ from }' };

/** The same of the one that sends mail. */
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
 * On SIGUSR1 Node opens its debugger on a port that every user of the machine can reach, and with it the rights of the process. A handler
 * takes its place, for all threads; it is the first line of every program. Before it Node needs some 20 ms to start, in which only a switch
 * of its own would help, and Node 20 ends at one that it does not know.
 */
const NO_DEBUGGER = "process.on('SIGUSR1', () => {}); // Node would open its debugger\n";

/**
 * When nothing is left to do, Node takes all its memory apart before it ends, where the system would do it at once: of a short program a
 * twentieth of all it costs. This event comes when nothing is pending any more, so that all that was written is out.
 */
const QUICK_END = "process.once('beforeExit', () => process.exit()); // Node would clean up\n";

mkdirSync(dist, { recursive: true });
// Whatever the umask: web users run what is in it.
chmodSync(dist, 0o755);
// Without it the package.json above would make Node read these files as ES modules.
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

/** A program that somebody starts meanwhile is the old one or the new one: one of no lines would end at once, and say that all is well. */
function replaceFile(path: string, text: string, mode: number): void {
  const next = join(dirname(path), `.${basename(path)}.${process.pid}`);
  writeFileSync(next, text);
  chmodSync(next, mode);
  renameSync(next, path);
}
