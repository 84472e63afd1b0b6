// npm run build:deb: makes the Debian package dist/webjob_VERSION_all.deb with dpkg-deb, from dist/
// and packaging/debian. The same commit gives the same bytes.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

const root = join(import.meta.dirname, '..');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

/** The built programs, with their places below /usr/lib/webjob and their names in /usr/bin. */
const PROGRAMS: Readonly<Record<string, { place: string; command?: string }>> = {
  webjob: { place: 'webjob', command: 'webjob' },
  webjobctl: { place: 'webjobctl.cjs' },
  'webjob-sign': { place: 'webjob-sign', command: 'webjob-sign' },
  'pad-make-script': { place: 'pad-make-script', command: 'pad-make-script' },
  'nph-webjob.cgi': { place: 'nph-webjob.cgi' },
  'nph-webjob-resident.cjs': { place: 'nph-webjob-resident.cjs' },
  // webjobctl init --view looks for the view beside webjobctl.
  'webjob-view.cgi': { place: 'webjob-view.cgi' },
};

/**
 * Writes the package into a directory and returns its path. `npm run build` must have run. Throws
 * Error when dpkg-deb fails.
 */
export function buildDeb(target = join(root, 'dist')): string {
  // dpkg sorts 1.0.0~rc.1 before 1.0.0.
  const debian = version.replace('-', '~');
  const epoch = sourceDate();
  const folder = mkdtempSync(join(tmpdir(), 'webjob-deb-'));
  try {
    const put = (path: string, content: string | Buffer, mode = 0o644): void => {
      const place = join(folder, path);
      mkdirSync(dirname(place), { recursive: true });
      writeFileSync(place, content);
      chmodSync(place, mode);
    };
    addPrograms(folder, put);
    addViewDirectory(folder);
    addDocuments(put, debian, epoch);
    addConfiguration(put);
    addControl(folder, put, debian);
    setTimes(folder, epoch);
    const file = join(target, `webjob_${debian}_all.deb`);
    // zlib's output depends only on its version; that of `xz` depends on the number of processors.
    execFileSync('dpkg-deb', ['--root-owner-group', '-Zgzip', '-z9', '--build', folder, file], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, SOURCE_DATE_EPOCH: String(epoch) },
    });
    return file;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * The time of SOURCE_DATE_EPOCH or of the last commit, or of package.json without git, in seconds
 * since 1970.
 */
function sourceDate(): number {
  if (process.env.SOURCE_DATE_EPOCH) return Number(process.env.SOURCE_DATE_EPOCH);
  try {
    const stdio: ['ignore', 'pipe', 'ignore'] = ['ignore', 'pipe', 'ignore'];
    return Number(execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: root, stdio }).toString());
  } catch {
    return Math.floor(statSync(join(root, 'package.json')).mtimeMs / 1000);
  }
}

type Put = (path: string, content: string | Buffer, mode?: number) => void;

function addPrograms(folder: string, put: Put): void {
  for (const [name, { place, command }] of Object.entries(PROGRAMS)) {
    const file = join(root, 'dist', name);
    if (!existsSync(file)) throw new Error(`dist/${name} is missing: npm run build makes it`);
    const isProgram = !place.endsWith('.cjs');
    put(join('usr/lib/webjob', place), forDebian(readFileSync(file, 'utf8'), isProgram), isProgram ? 0o755 : 0o644);
    if (command !== undefined) addCommand(folder, place, command);
  }
  const start = readFileSync(join(root, 'bin/webjobctl'), 'utf8')
    .replace(/^\/\/ .* in a checkout.*$/m, '// Starts webjobctl.cjs.')
    .replace("join(__dirname, '../dist/.compiled')", "'/var/cache/webjob'")
    .replace('../dist/webjobctl', './webjobctl.cjs');
  put('usr/lib/webjob/webjobctl', forDebian(start, true), 0o755);
  addCommand(folder, 'webjobctl', 'webjobctl');
}

/** Debian's node, whatever httpd's PATH is. */
function forDebian(text: string, isProgram: boolean): string {
  return text.replace(/^#!.*\n/, isProgram ? '#!/usr/bin/node\n' : '');
}

function addCommand(folder: string, place: string, command: string): void {
  mkdirSync(join(folder, 'usr/bin'), { recursive: true });
  symlinkSync(join('../lib/webjob', place), join(folder, 'usr/bin', command));
}

/** webjob-view.conf serves a directory with nothing else in it. */
function addViewDirectory(folder: string): void {
  mkdirSync(join(folder, 'usr/lib/webjob/view'));
  symlinkSync('../webjob-view.cgi', join(folder, 'usr/lib/webjob/view/webjob-view.cgi'));
}

function addDocuments(put: Put, debian: string, epoch: number): void {
  const read = (name: string): Buffer => readFileSync(join(root, name));
  const compress = (content: Buffer | string): Buffer => gzipSync(content, { level: 9 });
  for (const page of readdirSync(join(root, 'docs/man')))
    put(`usr/share/man/man${page.slice(-1)}/${page}.gz`, compress(read(`docs/man/${page}`)));
  const completion = (shell: string): string =>
    execFileSync(process.execPath, [join(root, 'dist/webjobctl'), 'completion', shell]).toString();
  put('usr/share/bash-completion/completions/webjob', read('completions/webjob.bash'));
  put('usr/share/bash-completion/completions/webjobctl', completion('bash'));
  put('usr/share/zsh/vendor-completions/_webjob', read('completions/_webjob'));
  put('usr/share/zsh/vendor-completions/_webjobctl', completion('zsh'));
  put('usr/share/fish/vendor_completions.d/webjob.fish', read('completions/webjob.fish'));
  put('usr/share/fish/vendor_completions.d/webjobctl.fish', completion('fish'));
  const doc = 'usr/share/doc/webjob';
  put(`${doc}/README.Debian`, read('packaging/debian/README.Debian'));
  put(`${doc}/README.md`, read('README.md'));
  put(`${doc}/NEWS.gz`, compress(read('CHANGELOG.md')));
  put(`${doc}/changelog.gz`, compress(formatChangelog(debian, epoch)));
  put(`${doc}/copyright`, formatCopyright());
  put('usr/share/lintian/overrides/webjob', read('packaging/debian/lintian-overrides'));
  for (const file of globSync('docs/**/*.md', { cwd: root }).sort()) put(`${doc}/${file}`, read(file));
  for (const file of globSync('apache/{htaccess*,README.md,debian/README.md}', { cwd: root }).sort())
    put(`${doc}/${file}`, read(file));
  for (const file of ['conf/nph-webjob.cfg', 'conf/webjob.conf']) put(`${doc}/examples/${basename(file)}`, read(file));
}

function formatChangelog(debian: string, epoch: number): string {
  const date = new Date(epoch * 1000).toUTCString().replace('GMT', '+0000');
  return `webjob (${debian}) unstable; urgency=medium

  * Release ${debian}; NEWS.gz lists what changed.

 -- ${maintainer()}  ${date}
`;
}

function maintainer(): string {
  const control = readFileSync(join(root, 'packaging/debian/control'), 'utf8');
  return /^Maintainer: (.*)$/m.exec(control)?.[1] ?? '';
}

/** The licences of the project and of every package that esbuild includes in its programs. */
function formatCopyright(): string {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: true; link?: true; version?: string }>;
  };
  const bundled = Object.entries(lock.packages)
    .filter(([place, entry]) => place.startsWith('node_modules/') && !entry.dev && !entry.link)
    .map(([place, entry]) => {
      const name = place.replace(/^.*node_modules\//, '');
      return `${name} ${entry.version}\n\n${readLicence(place).trim()}\n`;
    });
  const rule = `\n${'-'.repeat(72)}\n\n`;
  return [
    `webjob\n\n${readFileSync(join(root, 'LICENSE'), 'utf8').trim()}\n`,
    'The programs in /usr/lib/webjob contain the npm packages below.\n',
    ...bundled,
  ].join(rule);
}

/**
 * The licence of a package from its LICENSE, or from its README. Throws Error for one with neither.
 */
function readLicence(place: string): string {
  const files = readdirSync(join(root, place));
  const read = (pattern: RegExp): string | undefined => {
    const file = files.find((name) => pattern.test(name));
    return file === undefined ? undefined : readFileSync(join(root, place, file), 'utf8');
  };
  const text =
    read(/^licen[cs]e(?:\.|$)/i) ?? /^#+ *licen[cs]e\b[^\n]*\n(.*)/ims.exec(read(/^readme(?:\.|$)/i) ?? '')?.[1];
  if (!text?.trim()) throw new Error(`${place} has no licence`);
  return text;
}

/** Snippets for httpd, systemd units and the logrotate file, with Debian's paths. */
function addConfiguration(put: Put): void {
  const read = (name: string): string => readFileSync(join(root, name), 'utf8');
  put('etc/apache2/conf-available/webjob.conf', read('apache/debian/webjob.conf'));
  for (const file of globSync('apache/*.conf', { cwd: root }).sort()) put(`etc/webjob/${basename(file)}`, read(file));
  put(
    'etc/logrotate.d/webjob',
    read('conf/webjob.logrotate').replaceAll('/var/integrity/logfiles/', '/var/lib/webjob/logfiles/'),
  );
  for (const file of globSync('apache/systemd/*', { cwd: root }).sort())
    put(
      `usr/lib/systemd/system/${basename(file)}`,
      read(file)
        .replace('/usr/lib/cgi-bin/webjob/nph-webjob.cgi', '/usr/lib/webjob/nph-webjob.cgi')
        .replace('/usr/local/bin/webjobctl', '/usr/bin/webjobctl')
        .replace('/usr/lib/cgi-bin/webjob-view/webjob-view.cgi', '/usr/lib/webjob/webjob-view.cgi'),
    );
}

function addControl(folder: string, put: Put, debian: string): void {
  const read = (name: string): string => readFileSync(join(root, 'packaging/debian', name), 'utf8');
  const files = filesBelow(folder);
  const kilobytes = files.reduce((sum, file) => sum + Math.ceil(statSync(join(folder, file)).size / 1024), 0);
  const sums = execFileSync(
    'md5sum',
    files.filter((file) => !file.startsWith('etc/')),
    { cwd: folder },
  );
  const conffiles = files.filter((file) => file.startsWith('etc/')).map((file) => `/${file}\n`);
  put('DEBIAN/control', read('control').replace('@VERSION@', debian).replace('@SIZE@', String(kilobytes)));
  put('DEBIAN/conffiles', conffiles.join(''));
  put('DEBIAN/md5sums', sums);
  for (const name of ['postinst', 'prerm', 'postrm']) put(`DEBIAN/${name}`, read(name), 0o755);
}

/** Regular files, sorted; no links. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** Sets the times of all files, and the modes of directories regardless of the umask. */
function setTimes(folder: string, epoch: number): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const place = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(place, 0o755);
    if (!entry.isSymbolicLink()) utimesSync(place, epoch, epoch);
  }
  chmodSync(folder, 0o755);
}

if (import.meta.main) {
  const file = buildDeb();
  process.stdout.write(`${file}  ${(statSync(file).size / 1024 ** 2).toFixed(1)} MB\n`);
}
