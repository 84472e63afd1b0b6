// Builds dist/: one self-contained, readable CommonJS file for every program. A `.cgi` is copied alone into a cgi-bin, so
// nothing may be left beside it, and an ES module would cost every request 8 ms more.
import { chmodSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, type Plugin, transformSync } from 'esbuild';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

/**
 * `ini` exports one object, so esbuild would keep its writer, of which no program here calls a line. And the names in it are shortened:
 * who wants to read it has it from its own makers.
 */
const iniReader: Plugin = {
  name: 'ini-reader',
  setup({ onLoad }) {
    onLoad({ filter: /\/ini\/lib\/ini\.js$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8');
      const changes: [RegExp, string][] = [
        [/^module\.exports = \{[^}]*\}\s*$/m, 'export default { parse: decode };\n'],
        [/^ {2}const remove = \[\]\n.*?(?=^ {2}return out$)/ms, ''],
      ];
      const contents = changes.reduce((text, [part, other]) => {
        if (text.search(part) < 0) throw new Error(`${path} is written in another way than it was`);
        return text.replace(part, other);
      }, source);
      return { contents: transformSync(contents, { minifyIdentifiers: true, minifySyntax: true }).code, loader: 'js' };
    });
  },
};

/**
 * esbuild requires a built-in module once for every file that imports from it, and spells each use `(0, import_node_fs7.openSync)(…)`. One
 * require and `openSync(…)` are a tenth less to parse for every request, and can be read.
 */
const sharedBuiltins: Plugin = {
  name: 'shared-builtins',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:(?:fs|path)$/ }, ({ path, namespace }) =>
      namespace === 'shared' ? { path, external: true } : { path, namespace: 'shared' },
    );
    onLoad({ filter: /^/, namespace: 'shared' }, ({ path }) => {
      const names = importedNames(path).join(', ');
      return { contents: `export const { ${names} } = require('${path}');\n` };
    });
  },
};

/** What the files of the server import from a module. */
function importedNames(module: string): string[] {
  const names = globSync('{cgi,conf}/**/*.ts', { cwd: root }).flatMap((file) => {
    const imports = readFileSync(join(root, file), 'utf8').matchAll(/^import \{([^}]*)\} from '([^']+)';$/gm);
    return [...imports].filter((found) => found[2] === module).flatMap((found) => found[1]?.split(',') ?? []);
  });
  return [...new Set(names.map((name) => name.trim()).filter((name) => /^\w+$/.test(name)))].sort();
}

/** Half the bytes in front of every line, no comments inside of anything, and no notes of the bundler but where a part comes from. */
function tidy(code: string): string {
  const tidied = code
    .replace(/^(?: {2})+(?:\/\/ .*|\/\*\* .*\*\/)\n/gm, '')
    .replace(/^\/\/ shared:.*\n/gm, '')
    .replace(/^(?: {2})+/gm, (blanks) => '\t'.repeat(blanks.length / 2))
    .replaceAll('/* @__PURE__ */ ', '');
  const compact = (text: string): string => transformSync(text, { minifyWhitespace: true }).code;
  if (compact(tidied) !== compact(code).replaceAll('/* @__PURE__ */', ''))
    throw new Error('a string of several lines would be changed with the indentation');
  return tidied;
}

const PROGRAMS = [
  { source: 'cgi/main.ts', target: 'nph-webjob.cgi', plugins: [iniReader, sharedBuiltins], finish: tidy },
  { source: 'cgi/resident.ts', target: 'nph-webjob-resident.cjs', plugins: [], finish: String },
  { source: 'client/main.ts', target: 'webjob', plugins: [iniReader], finish: String },
  { source: 'client/pad/main.ts', target: 'pad-make-script', plugins: [], finish: String },
  { source: 'admin/sign/main.ts', target: 'webjob-sign', plugins: [], finish: String },
  { source: 'admin/main.ts', target: 'webjobctl', plugins: [iniReader], finish: String },
];

/** The texts that webjobctl installs, of the files that admin/shipped.ts names. */
const shipped = Object.fromEntries(
  [...readFileSync(join(root, 'admin', 'shipped.ts'), 'utf8').matchAll(/^ {2}\| '(.+)'/gm)].map(([, file = '']) => [
    file,
    readFileSync(join(root, file), 'utf8'),
  ]),
);

mkdirSync(dist, { recursive: true });
// Whatever the umask: web users run what is in it.
chmodSync(dist, 0o755);
// Without it the package.json above would make Node read these files as ES modules.
writeFileSync(join(dist, 'package.json'), '{ "type": "commonjs" }\n');
for (const { source, target, plugins, finish } of PROGRAMS) {
  const built = await build({
    entryPoints: [join(root, source)],
    write: false,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    // Shorter, but still to be read: names and lines stay. A script's size is start-up time, and so part of every request.
    minifySyntax: true,
    plugins,
    loader: { '.sh': 'text' },
    define: { WEBJOB_VERSION: JSON.stringify(version), WEBJOB_SHIPPED: JSON.stringify(shipped) },
    legalComments: 'none',
    logLevel: 'warning',
  });
  const code = built.outputFiles[0]?.text.replace('"use strict";\n', '') ?? '';
  const isProgram = !target.endsWith('.cjs');
  const banner = `'use strict'; // ${target} ${version}, built from TypeScript: change ${source}\n`;
  const outfile = join(dist, target);
  writeFileSync(outfile, (isProgram ? '#!/usr/bin/env node\n' : '') + banner + finish(code));
  chmodSync(outfile, isProgram ? 0o755 : 0o644);
}
