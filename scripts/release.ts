// npm run release [-- --key FILE]: writes everything that is published for a version to
// dist/release, with SHA256SUMS and its signature.
import { execFileSync } from 'node:child_process';
import { createHash, createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { buildDeb } from './deb.ts';
import { buildNpmPackages } from './npm-packages.ts';

const root = join(import.meta.dirname, '..');

/**
 * Writes the sources, the Debian package, the npm packages and SHA256SUMS into an empty directory.
 * With an Ed25519 key in PEM it adds SHA256SUMS.sig, the raw signature, and release.pub. Returns
 * the names of the files.
 */
export function writeRelease(target: string, keyFile?: string): string[] {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  mkdirSync(target, { recursive: true });
  const archive = ['archive', '--format=tar', `--prefix=webjob-${version}/`, 'HEAD'];
  const sources = execFileSync('git', archive, { cwd: root, maxBuffer: 1 << 30 });
  writeFileSync(join(target, `webjob-${version}-source.tar.gz`), gzipSync(sources, { level: 9 }));
  buildDeb(target);
  buildNpmPackages(target);
  const sums = readdirSync(target)
    .sort()
    .map((name) => `${sha256(join(target, name))}  ${name}\n`);
  writeFileSync(join(target, 'SHA256SUMS'), sums.join(''));
  if (keyFile !== undefined) {
    const key = createPrivateKey(readFileSync(keyFile));
    if (key.asymmetricKeyType !== 'ed25519') throw new Error(`${keyFile} is not an Ed25519 key`);
    writeFileSync(join(target, 'SHA256SUMS.sig'), sign(null, Buffer.from(sums.join('')), key));
    writeFileSync(join(target, 'release.pub'), createPublicKey(key).export({ type: 'spki', format: 'pem' }));
  }
  return readdirSync(target).sort();
}

function sha256(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

function checkIsCommitted(): void {
  const changes = execFileSync('git', ['status', '--porcelain'], { cwd: root, encoding: 'utf8' });
  if (changes !== '') throw new Error(`uncommitted changes would not be in the sources:\n${changes}`);
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { key: { type: 'string' } } });
  checkIsCommitted();
  const target = join(root, 'dist', 'release');
  rmSync(target, { recursive: true, force: true });
  for (const name of writeRelease(target, values.key)) process.stdout.write(`${join(target, name)}\n`);
  if (values.key === undefined) process.stderr.write('webjob: SHA256SUMS is not signed: give --key FILE\n');
}
