// The first file that webjobctl loads: ends it on a Node that is too old, before it does anything.

/** The versions with node:sqlite and no flag: 22.13 and, of the odd versions, 23.4. */
const OLDEST: ReadonlyMap<number, number> = new Map([
  [22, 13],
  [23, 4],
]);

/** Whether webjobctl can run on a version such as `v22.13.0`. */
export function canRun(version: string): boolean {
  const [major = 0, minor = 0] = version.slice(1).split('.').map(Number);
  return major > Math.max(...OLDEST.keys()) || minor >= (OLDEST.get(major) ?? Number.POSITIVE_INFINITY);
}

if (!canRun(process.version)) {
  process.stderr.write(
    `webjobctl: error: requires Node 22.13 or later (running ${process.version})\n` +
      'webjobctl: hint: https://github.com/nodesource/distributions has packages for Debian and others\n',
  );
  process.exit(4);
}
