// curl as a client: what people use to try a server, and the only client here that supports HTTP/2.
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** For `skip`: why it cannot be used, or false. */
export const NO_CURL = spawnSync('curl', ['--version']).status !== 0 && 'no curl on this machine';

export interface CurlAnswer {
  status: number;
  /** The HTTP version of the request: `2`, `1.1` or `1`. */
  version: string;
  /** Connections made for it: 0 when one was reused. */
  connects: number;
  bytesUploaded: number;
  /** Including what httpd sent before the answer, such as `100 Continue`. */
  head: string;
  body: Buffer;
}

const TIME_LIMIT_SECONDS = '60';
const REPORT = '%{http_code} %{http_version} %{num_connects} %{size_upload}\n';

/**
 * Runs curl once with common options and a group of options for every request. Rejects when one
 * gets no answer.
 */
export async function runCurl(common: string[], ...requests: string[][]): Promise<CurlAnswer[]> {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-curl-'));
  try {
    const file = (kind: string, index: number): string => join(folder, `${kind}${index}`);
    const words = requests.flatMap((request, index) => [
      ...(index > 0 ? ['--next'] : []),
      ...['--silent', '--show-error', '--max-time', TIME_LIMIT_SECONDS, '--write-out', REPORT],
      ...['--dump-header', file('head', index), '--output', file('body', index), ...common, ...request],
    ]);
    const report = await run(['--disable', ...words]);
    return report
      .trimEnd()
      .split('\n')
      .map((line, index) => {
        const [status, version = '', connects, uploaded] = line.split(' ');
        return {
          status: Number(status),
          version,
          connects: Number(connects),
          bytesUploaded: Number(uploaded),
          head: readFileSync(file('head', index), 'latin1'),
          body: readIfThere(file('body', index)),
        };
      });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function run(words: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('curl', words, (error, stdout, stderr) => {
      if (error) reject(new Error(`curl ended with ${error.code}: ${stderr}`));
      else resolve(stdout);
    });
  });
}

/** curl makes no file for an answer without a body. */
function readIfThere(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch {
    return Buffer.alloc(0);
  }
}
