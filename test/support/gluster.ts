// A GlusterFS volume with three replicas on this machine, and FUSE mounts of it, for
// test/support/distributed.ts. scripts/distributed.ts makes the namespaces in which it runs.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from './wait.ts';

/** The address of the bricks; undefined outside of these namespaces. */
export const GLUSTER = process.env.WEBJOB_TEST_GLUSTER;
const VOLUME = 'locker';
const PIDS = `/run/gluster/vols/${VOLUME}`;
const TIME_LIMIT_MS = 120_000;

export class Gluster {
  readonly #root: string;
  readonly #mounts = new Map<string, ChildProcess>();
  #daemon: ChildProcess | undefined;

  private constructor(root: string) {
    this.#root = root;
  }

  /** Makes the volume, with its bricks below `root`, which must take extended attributes. */
  static async start(root: string): Promise<Gluster> {
    const made = new Gluster(root);
    // Daemons would keep a pipe open.
    const said = openSync(join(root, 'glusterd.out'), 'a');
    made.#daemon = spawn('glusterd', ['-N'], { stdio: ['ignore', said, said] });
    await waitFor('glusterd', () => spawnSync('gluster', ['--mode=script', 'volume', 'list']).status === 0);
    const bricks = [1, 2, 3].map((number) => join(root, `brick${number}`));
    for (const brick of bricks) mkdirSync(brick);
    made.volume('create', ...['replica', '3'], ...bricks.map((brick) => `${GLUSTER}:${brick}`), 'force');
    // A client that cannot reach a brick waits this long for it. The default is 42 seconds.
    made.volume('set', 'network.ping-timeout', '5');
    made.volume('start');
    return made;
  }

  /** `gluster volume COMMAND locker …`; throws Error. */
  volume(command: string, ...args: string[]): string {
    return execFileSync('gluster', ['--mode=script', 'volume', command, VOLUME, ...args], {
      encoding: 'utf8',
      timeout: TIME_LIMIT_MS,
    });
  }

  /** Mounts the volume by a process of its own, and returns the mount point. */
  async mount(name: string): Promise<string> {
    const path = join(this.#root, name);
    mkdirSync(path, { recursive: true });
    const args = [`--volfile-server=${GLUSTER}`, `--volfile-id=${VOLUME}`, '--no-daemon', path];
    const said = openSync(join(this.#root, `${name}.out`), 'a');
    this.#mounts.set(name, spawn('glusterfs', args, { stdio: ['ignore', said, said] }));
    await waitFor(`the mount ${name}`, () => readFileSync('/proc/self/mounts', 'utf8').includes(` ${path} fuse.`));
    return path;
  }

  /** Kills the process behind a mount; then every use of the mount fails with ENOTCONN. */
  killMount(name: string): void {
    this.#mounts.get(name)?.kill('SIGKILL');
  }

  async mountAgain(name: string): Promise<void> {
    spawnSync('umount', ['-l', join(this.#root, name)]);
    await this.mount(name);
  }

  /** Numbers from 1 to 3. */
  killBrick(number: number): void {
    process.kill(this.#pidOf(number), 'SIGKILL');
  }

  /** Starts the bricks that were killed. */
  startBricks(): void {
    this.volume('start', 'force');
  }

  /**
   * Waits until every file is on all bricks again. Must be called without writers, which would keep
   * the bricks busy.
   */
  async untilRepaired(): Promise<void> {
    await waitFor('the repair of the replicas', async () => {
      await sleep(500);
      const said = spawnSync('gluster', ['volume', 'heal', VOLUME, 'info'], { encoding: 'utf8' }).stdout;
      const counts = [...said.matchAll(/^Number of entries: (\S+)$/gm)].map(([, count]) => count);
      return counts.length === 3 && counts.every((count) => count === '0');
    });
  }

  /** Ends the processes that this one has started; the bricks end with the namespaces. */
  stop(): void {
    for (const child of [...this.#mounts.values(), this.#daemon]) child?.kill('SIGKILL');
  }

  #pidOf(number: number): number {
    const file = readdirSync(PIDS).find((name) => name.endsWith(`brick${number}.pid`));
    return Number(readFileSync(join(PIDS, file ?? ''), 'utf8'));
  }
}
