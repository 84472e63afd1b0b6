// nginx in front of httpd, as an edge that a site may have.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** For `skip`: why it cannot be tried, or false. */
export function isNginxMissing(): string | false {
  return spawnSync('nginx', ['-v']).error ? 'no nginx on this machine' : false;
}

export interface NginxOptions {
  /** What `listen` says behind the port: `ssl http2`. */
  listen?: string;
  /** Lines of the server. */
  lines?: string;
}

export interface Nginx {
  port: number;
  close(): Promise<void>;
}

/** An nginx of its own in front of httpd, with connections that it keeps. */
export async function startNginx(upstream: number, { listen = '', lines = '' }: NginxOptions = {}): Promise<Nginx> {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-nginx-'));
  const port = await findFreePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${folder}/${name};`,
  );
  const configuration = `
daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log;
events {}
http {
  access_log off; ${temporary.join(' ')}
  upstream webjob { server 127.0.0.1:${upstream}; keepalive 8; }
  server {
    listen 127.0.0.1:${port} ${listen}; ${lines}
    location / { proxy_pass http://webjob; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`;
  writeFileSync(join(folder, 'nginx.conf'), configuration);
  const child = spawn('nginx', ['-p', folder, '-e', `${folder}/error.log`, '-c', join(folder, 'nginx.conf')], {
    stdio: 'ignore',
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  for (let tries = 0; tries < 200 && !(await canConnect(port)); tries += 1) await sleep(20);
  return {
    port,
    close: async () => {
      child.kill('SIGTERM');
      await ended;
      rmSync(folder, { recursive: true });
    },
  };
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });
}

function findFreePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}
