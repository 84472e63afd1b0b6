// The files of apache/ and conf/ as they are shipped. scripts/build.ts inserts their texts here, so
// that dist/webjobctl needs no other file than the script that it installs.
import { existsSync, realpathSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Failure } from '../../cli/failure.ts';

declare const WEBJOB_SHIPPED: Record<ShippedFile, string>;
/**
 * JSON with the texts of docs/man and completions by path, compressed, because few commands need it
 * and Node reads the whole file.
 */
declare const WEBJOB_MANUALS: string;

/** Paths in the project; scripts/build.ts reads this list. */
export type ShippedFile =
  | 'apache/webjob.conf'
  | 'apache/webjob-certificates.conf'
  | 'apache/webjob-tls.conf'
  | 'apache/htaccess'
  | 'apache/htaccess-certificates'
  | 'apache/htaccess-either'
  | 'apache/debian/webjob.conf'
  | 'apache/webjob-view.conf'
  | 'apache/systemd/webjob-view.service'
  | 'apache/systemd/webjob-view.socket'
  | 'apache/systemd/webjob-acts.service'
  | 'apache/systemd/webjob-acts.path'
  | 'apache/systemd/webjob-acts.timer'
  | 'conf/nph-webjob.cfg'
  | 'conf/webjob.logrotate';

export function shippedText(file: ShippedFile): string {
  return WEBJOB_SHIPPED[file];
}

/**
 * The man pages and the client's completions, by their paths in the project: `docs/man/webjob.1`.
 */
export function shippedManuals(): Record<string, string> {
  return JSON.parse(gunzipSync(Buffer.from(WEBJOB_MANUALS, 'base64')).toString());
}

/** Where the Debian package installs the programs, and replaces them in upgrades. */
const PACKAGE_DIRECTORY = '/usr/lib/webjob';

/** Whether the Debian package installed a file, and will replace it in an upgrade. */
export function isPackaged(file: string): boolean {
  return dirname(file) === PACKAGE_DIRECTORY;
}

/**
 * The path of nph-webjob.cgi or another script: the file given, or the one beside dist/webjobctl.
 * Throws Failure `failed`.
 */
export function findScript(given: string | undefined, name = 'nph-webjob.cgi'): string {
  if (given !== undefined) {
    if (!existsSync(given)) throw new Failure('failed', `--cgi: there is no ${given}`);
    if (!statSync(given).isFile()) throw new Failure('failed', `--cgi: ${given} is not a regular file`);
    return resolve(given);
  }
  const folder = dirname(realpathSync(process.argv[1] ?? '.'));
  const places = [join(folder, name), join(folder, '..', 'dist', name)];
  const found = places.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new Failure(
    'failed',
    `${name} is not beside webjobctl in ${folder}`,
    'build it with npm run build, or name it: --cgi FILE',
  );
}
