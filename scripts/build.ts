// Builds dist/: one self-contained, readable CommonJS file for every program. A `.cgi` is copied alone into a cgi-bin, so
// nothing may be left beside it, and an ES module would cost every request 8 ms more.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, type Plugin } from 'esbuild';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

const PROGRAMS = [
  { source: 'cgi/main.ts', target: 'nph-webjob.cgi' },
  { source: 'client/main.ts', target: 'webjob' },
];

/** `ini` exports one object, so esbuild would keep its writer, of which no program here calls a line. */
const withoutIniWriter: Plugin = {
  name: 'without-ini-writer',
  setup({ onLoad }) {
    onLoad({ filter: /\/ini\/lib\/ini\.js$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8');
      const contents = source.replace(/^module\.exports = \{[^}]*\}\s*$/m, 'export default { parse: decode };\n');
      if (contents === source) throw new Error(`${path} exports in another way than it did`);
      return { contents, loader: 'js' };
    });
  },
};

mkdirSync(dist, { recursive: true });
// Without it the package.json above would make Node read these files as ES modules.
writeFileSync(join(dist, 'package.json'), '{ "type": "commonjs" }\n');
for (const { source, target } of PROGRAMS) {
  const outfile = join(dist, target);
  await build({
    entryPoints: [join(root, source)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    banner: {
      js: `#!/usr/bin/env node\n'use strict'; // ${target} ${version}, built from TypeScript: change ${source}`,
    },
    define: { WEBJOB_VERSION: JSON.stringify(version) },
    plugins: [withoutIniWriter],
    legalComments: 'none',
    logLevel: 'warning',
  });
  chmodSync(outfile, 0o755);
}
