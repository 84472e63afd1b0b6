// What a request costs: GET and PUT of 1 kB against an empty nph script of Node and one of sh, under the same httpd, in turn, so that all of
// them see the same machine. Prints medians and ratios; asserts nothing.
import { chmodSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startHttpd } from '../scripts/httpd.ts';
import { addCommand, configure, makeSite, type Site } from '../scripts/site.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/request.ts [--rounds N]

Latency of GET and PUT (1 kB) under httpd, one request at a time, beside an empty nph script of Node and one of sh.

  --rounds N  requests of each kind (default 200)
`;
const KILOBYTE = 1024;
const WARM_UP = 10;
const EMPTY_ANSWER = 'HTTP/1.1 200 OK\\r\\nContent-Type: application/octet-stream\\r\\nContent-Length: 0\\r\\n\\r\\n';
const EMPTY = {
  'nph-empty-sh.cgi': `#!/bin/sh\nprintf '${EMPTY_ANSWER}'\n`,
  'nph-empty-node.cgi': `#!/usr/bin/env node\nrequire('node:fs').writeSync(1, '${EMPTY_ANSWER}');\n`,
};

interface Peer {
  name: string;
  method: 'GET' | 'PUT';
  path: string;
  body: Buffer;
  milliseconds: number[];
}

async function main(): Promise<void> {
  const flag = { rounds: { type: 'string', default: '200' }, help: { type: 'boolean', default: false } } as const;
  const { rounds, help } = parseArgs({ options: flag }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  if (!/^[1-9][0-9]{0,5}$/.test(rounds)) throw new RangeError('--rounds is a whole number from 1');
  const site = makeSite();
  try {
    configure(site, { PutNameFormat: '%cid_%jid' });
    addCommand(site, 'client1', 'kilobyte', Buffer.alloc(KILOBYTE, 'x'));
    for (const [name, text] of Object.entries(EMPTY)) {
      writeFileSync(join(site.cgiDirectory, name), text);
      chmodSync(join(site.cgiDirectory, name), 0o755);
    }
    for (const mpm of ['prefork', 'event'] as const) await measure(site, mpm, Number(rounds));
  } finally {
    site.remove();
  }
}

async function measure(site: Site, mpm: 'prefork' | 'event', rounds: number): Promise<void> {
  const server = await startHttpd({ site, mpm });
  const peers = makePeers();
  try {
    for (let round = -WARM_UP; round < rounds; round++) {
      process.stderr.write(round % 50 === 0 ? `${mpm}: ${Math.max(0, round)} of ${rounds}\n` : '');
      for (const peer of peers) {
        const took = await ask(server.port, peer, `bench_${mpm}_${round + WARM_UP}`);
        if (round >= 0) peer.milliseconds.push(took);
      }
    }
  } finally {
    await server.stop();
  }
  print(mpm, peers);
}

function makePeers(): Peer[] {
  const query = 'VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=kilobyte';
  const put = `${query}&RUNTYPE=snapshot&STDOUT_LENGTH=${KILOBYTE}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  const none = Buffer.alloc(0);
  const rest = { body: none, method: 'GET' as const };
  return [
    { name: 'empty nph script, sh', ...rest, path: 'nph-empty-sh.cgi', milliseconds: [] },
    { name: 'empty nph script, Node', ...rest, path: 'nph-empty-node.cgi', milliseconds: [] },
    { name: 'webjob GET 1 kB', ...rest, path: `nph-webjob.cgi?${query}`, milliseconds: [] },
    {
      ...{ name: 'webjob PUT 1 kB', method: 'PUT', path: `nph-webjob.cgi?${put}` },
      ...{ body: Buffer.alloc(KILOBYTE, 'x'), milliseconds: [] },
    },
  ];
}

/** One request on a connection of its own; returns the milliseconds until its answer was there. */
function ask(port: number, { name, method, path, body }: Peer, jobId: string): Promise<number> {
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const asked = request({
      ...{ host: '127.0.0.1', port, method, path: `/webjob/${path}`, agent: false, auth: 'client1:foo' },
      headers: { 'Content-Length': body.length, 'Job-Id': jobId },
    });
    asked.on('error', reject).on('response', (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`${name} answered ${answer.statusCode}`));
      answer.resume().on('end', () => resolve(performance.now() - start));
    });
    asked.end(body);
  });
}

function print(mpm: string, peers: Peer[]): void {
  const [sh = 0, node = 0] = peers.map((peer) => quantile(peer.milliseconds, 0.5));
  const rows = peers.map((peer) => {
    const median = quantile(peer.milliseconds, 0.5);
    return [
      peer.name.padEnd(24),
      ...[median, quantile(peer.milliseconds, 0.99)].map((value) => value.toFixed(1).padStart(8)),
      ...[median / node, median / sh].map((ratio) => ratio.toFixed(2).padStart(10)),
    ].join('');
  });
  const heading = `${mpm.padEnd(24)}${['p50 ms', 'p99 ms'].map((text) => text.padStart(8)).join('')}${[
    'to Node',
    'to sh',
  ]
    .map((text) => text.padStart(10))
    .join('')}`;
  process.stdout.write(`${[heading, ...rows].join('\n')}\n\n`);
}

await main();
