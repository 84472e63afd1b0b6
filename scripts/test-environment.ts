// The environment of the tests: always the same, whatever is exported where they are started.
import { chmodSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { NOTES } from './test-leftovers.ts';
import { openProgram } from './web-user.ts';

/**
 * Variables that locate programs and packages, identify the user, and configure the tests. All
 * others are left out.
 */
const KEPT =
  /^(?:PATH|USER|LOGNAME|CI|(?:https?|no)_proxy|NODE_EXTRA_CA_CERTS|SSL_CERT_(?:FILE|DIR)|npm_config_\w+|WEBJOB_TEST_\w+)$/i;

export interface TestEnvironment {
  variables: NodeJS.ProcessEnv;
  /** The Node that runs the tests. */
  node: string;
  /**
   * The file in which the tests note servers and mounts that they may leave behind, for
   * removeLeftovers().
   */
  notes: string;
  remove(): void;
}

/**
 * Makes an environment for the tests: the variables that locate programs and packages, an empty
 * home that everyone may enter, and /tmp for temporary files; `isFast` is for refuseWhenFast().
 * Sets the umask of this process and its children. For root, when others may not enter the
 * directory of Node, the tests get a copy, because they run scripts as the web user.
 */
export function makeEnvironment(isFast: boolean, given = process.env): TestEnvironment {
  process.umask(0o022);
  const folder = mkdtempSync('/tmp/webjob-test-');
  chmodSync(folder, 0o755);
  const kept = Object.entries(given).filter(([name]) => KEPT.test(name));
  // npm takes these from the home directory, which is replaced here.
  const npm = { npm_config_userconfig: join(homedir(), '.npmrc'), npm_config_cache: join(homedir(), '.npm') };
  const node = openProgram(realpathSync(process.execPath), () => folder);
  const PATH = [dirname(node), ...sortPath(given.PATH ?? '/usr/bin:/bin')].join(delimiter);
  const fast = isFast ? { WEBJOB_TEST_FAST: '1' } : {};
  const notes = join('/tmp', `${basename(folder)}.notes`);
  const own = { PATH, HOME: folder, TMPDIR: '/tmp', [NOTES]: notes };
  const variables = { ...npm, ...Object.fromEntries(kept), ...fast, ...own };
  const remove = (): void => {
    for (const path of [folder, notes]) rmSync(path, { recursive: true, force: true });
  };
  return { variables, node, notes, remove };
}

/**
 * Moves directories of shims to the end of PATH: shims are scripts that look for the program, which
 * takes longer than a short program runs.
 */
function sortPath(path: string): string[] {
  const folders = path.split(delimiter);
  const isShims = (folder: string): boolean => basename(folder) === 'shims';
  return [...folders.filter((folder) => !isShims(folder)), ...folders.filter(isShims)];
}
