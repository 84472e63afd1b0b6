// A request that a process of its own answers: a CGI script is started for it, the body goes there as it comes, and what it says comes back.
// For what would keep the process that stays busy for long.
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import type { CgiEnvironment } from './request.ts';

/** Starts a Node script as a web server would, one that is no nph script. */
export function startScript(path: string, env: CgiEnvironment): ChildProcess {
  return spawn(process.execPath, [path], {
    env: { ...env, GATEWAY_INTERFACE: 'CGI/1.1', SCRIPT_FILENAME: path.replace(/^.*\/(?:nph-)?/, '/') },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

/** Where the answer goes. */
export interface RelayEnds {
  send(bytes: Buffer): void;
  /** Called once. The answer is not whole when the process failed: then `hasBegun` says whether some of it was sent. */
  end(isWhole: boolean, hasBegun: boolean): void;
}

export class Relay {
  readonly #child: ChildProcess;
  readonly #socket: Socket;

  /** The child has pipes for descriptors 0 and 1. */
  constructor(child: ChildProcess, socket: Socket, { send, end }: RelayEnds) {
    this.#child = child;
    this.#socket = socket;
    const { stdin, stdout } = child;
    let hasBegun = false;
    let hasEnded = false;
    const finish = (isWhole: boolean): void => {
      if (hasEnded) return;
      hasEnded = true;
      socket.resume();
      end(isWhole, hasBegun);
    };
    // It may end before it has read everything.
    stdin?.on('error', () => {});
    stdin?.on('drain', () => socket.resume());
    stdout?.on('data', (bytes: Buffer) => {
      hasBegun = true;
      send(bytes);
      if (!socket.writableNeedDrain) return;
      stdout.pause();
      socket.once('drain', () => stdout.resume());
      // A peer that is gone reads no more.
      socket.once('close', () => stdout.resume());
    });
    child.on('error', () => finish(false));
    child.on('close', (code) => finish(code === 0 && hasBegun));
  }

  /** A piece of the body. Node reads each into memory of its own, so it is not copied. */
  write(piece: Buffer): void {
    const { stdin } = this.#child;
    if (!stdin?.writable) return;
    // What came together is written together.
    stdin.cork();
    if (!stdin.write(piece)) this.#socket.pause();
    process.nextTick(() => stdin.uncork());
  }

  /** The body is whole, or will never be. */
  end(): void {
    this.#child.stdin?.end();
  }
}
