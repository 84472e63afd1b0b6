// npm run test:distributed: test/support/distributed.ts, which makes a GlusterFS of its own. It
// takes minutes, installs GlusterFS, and needs root, so no other run of the tests includes it. It
// runs in namespaces of its own: nothing of it stays mounted or running, and its address is
// private.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { installPackages, installTestPrograms } from './debian.ts';
import { obtainHttpd } from './httpd-package.ts';

const root = join(import.meta.dirname, '..');
/** The directories in which the programs of GlusterFS keep their state and logs. */
const STATE = ['/var/lib/glusterd', '/var/log/glusterfs', '/run/gluster'];
/** GlusterFS refuses bricks at a loopback address. */
const ADDRESS = '10.86.0.1';

const SET_UP = `
set -e
ip link set lo up
ip addr add ${ADDRESS}/32 dev lo
mount --make-rprivate /
for folder in ${STATE.join(' ')}; do
  mkdir -p "$folder"
  mount -t tmpfs tmpfs "$folder"
done
# The first process of the namespaces takes over daemons, and must wait for those that end.
"$@"
exit $?
`;

process.exit(main());

function main(): number {
  if (process.getuid?.() !== 0) return fail('requires root, to mount file systems', 'sudo npm run test:distributed');
  if (spawnSync('glusterd', ['--version']).status !== 0 && !installPackages(['glusterfs-server']))
    return fail('GlusterFS is missing', 'apt-get install glusterfs-server');
  // Before the test starts, because no network reaches the namespaces.
  installTestPrograms();
  obtainHttpd();
  const within = ['-nmp', '--fork', '--mount-proc', '--kill-child', 'sh', '-c', SET_UP, 'sh'];
  const test = [process.execPath, join(root, 'scripts', 'test.ts'), join(root, 'test', 'support', 'distributed.ts')];
  const { status } = spawnSync('unshare', [...within, ...test], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, WEBJOB_TEST_GLUSTER: ADDRESS },
  });
  return status ?? 1;
}

function fail(what: string, hint: string): number {
  process.stderr.write(`webjob: error: ${what}\nwebjob: hint: ${hint}\n`);
  return 1;
}
