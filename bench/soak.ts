// A long life in a short time: sends many requests to one persistent worker over its socket, as
// httpd would. Memory and descriptors must not grow, and no job id and no name of an upload may
// repeat; otherwise exits with 1.
import { chownSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import {
  formatBeginning,
  formatPairs,
  formatRecord,
  formatStream,
  RECORD_TYPES,
  RESPONDER_ROLE,
  RecordParser,
} from 'node-cgi-compat/responder';
import { startResident } from '../scripts/resident.ts';
import { makeSite, type Site } from '../scripts/site.ts';
import { quantile } from './quantile.ts';
import { installRestReport, type Rest, takeRest } from './rest.ts';

const HELP = `Usage: node bench/soak.ts [--requests N] [--puts N]

Sends requests to one persistent worker, eight at once: half over kept connections, half over new ones. It rests twenty
times: no request is in progress, the process collects its garbage twice, and is measured.

  --requests N  number of requests (default 1000000; the first 10000 are a warm-up)
  --puts N      one request in N is a PUT (default 50)

  live    used heap and external memory after the collection
  RSS     resident memory of the process after the collection
  before  resident memory before the collection
  peak    peak resident memory since the previous rest

Exits with 1 when live memory or RSS at rest has grown by more than a fifth (the median of the last five rests compared
with that of the first five after the warm-up), when a descriptor is left open, when an id or a name repeats, or when a
request fails.
`;
const LANES = 8;
const WARM_UP = 10_000;
const RESTS = 20;
const COMPARED = 5;
const MAX_GROWTH = 0.2;
const BODY = Buffer.alloc(1024, 'x');

interface Tally {
  asked: number;
  puts: number;
  ids: Set<string>;
  repeated: number;
  failed: string[];
}

async function main(): Promise<void> {
  const number = (value: string) => ({ type: 'string', default: value }) as const;
  const flags = { requests: number('1000000'), puts: number('50'), help: { type: 'boolean', default: false } } as const;
  const { requests, puts, help } = parseArgs({ options: flags }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  for (const value of [requests, puts])
    if (!/^[1-9][0-9]{0,8}$/.test(value)) throw new RangeError('--requests and --puts are whole numbers from 1');
  const site = makeSite({ resident: true });
  const resident = await startResident(site, [], installRestReport(site));
  try {
    process.exitCode = (await soak(site, resident.pid, resident.socket, Number(requests), Number(puts))) ? 0 : 1;
  } finally {
    await resident.stop();
    site.remove();
  }
}

async function soak(site: Site, pid: number, socket: string, requests: number, puts: number): Promise<boolean> {
  const tally: Tally = { asked: 0, puts: 0, ids: new Set(), repeated: 0, failed: [] };
  const startedAt = performance.now();
  const rests: Rest[] = [];
  let stored = 0;
  const warmUp = Math.min(WARM_UP, Math.ceil(requests / 4));
  const stops = Array.from({ length: RESTS }, (_, i) => warmUp + Math.ceil(((requests - warmUp) * i) / (RESTS - 1)));
  print(['requests', 'live MB', 'RSS MB', 'before', 'peak', 'fds', 'per s']);
  for (const stop of stops) {
    await Promise.all(
      Array.from({ length: LANES }, (_, lane) => askInTurn(site, socket, tally, stop, puts, lane % 2 === 0)),
    );
    stored += clear(site);
    const rest = await takeRest(site, pid);
    rests.push(rest);
    const seconds = (performance.now() - startedAt) / 1000;
    const sizes = [rest.live, rest.rss, rest.before, rest.peak].map((megabytes) => megabytes.toFixed(1));
    print([tally.asked, ...sizes, rest.descriptors, Math.round(tally.asked / seconds)]);
    if (tally.failed.length > 0) break;
  }
  return judge(rests, tally, stored);
}

function judge(rests: Rest[], tally: Tally, stored: number): boolean {
  const growths = (['live', 'rss'] as const).map((what) => {
    const median = (part: Rest[]): number =>
      quantile(
        part.map((rest) => rest[what]),
        0.5,
      );
    return median(rests.slice(-COMPARED)) / median(rests.slice(0, COMPARED)) - 1;
  });
  const [live = Number.NaN, rss = Number.NaN] = growths;
  const more = (rests.at(-1)?.descriptors ?? Number.NaN) - (rests[0]?.descriptors ?? Number.NaN);
  const percent = (growth: number): string => `${growth > 0 ? '+' : ''}${(growth * 100).toFixed(1)} %`;
  const lines = [
    `growth: live ${percent(live)}, RSS ${percent(rss)}, descriptors ${more > 0 ? '+' : ''}${more}, ${tally.repeated} ids repeated`,
    `${tally.puts} uploads answered 200, ${stored} stored under names of their own`,
    ...tally.failed.slice(0, 3),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
  const isFlat = growths.every((growth) => growth <= MAX_GROWTH) && more <= LANES;
  return isFlat && tally.repeated === 0 && stored === tally.puts && tally.failed.length === 0;
}

/** One of several concurrent clients: sends requests until all together have sent enough. */
async function askInTurn(
  site: Site,
  path: string,
  tally: Tally,
  stop: number,
  puts: number,
  isKept: boolean,
): Promise<void> {
  let client: Client | undefined;
  while (tally.asked < stop && tally.failed.length === 0) {
    tally.asked += 1;
    const isPut = tally.asked % puts === 0;
    client ??= new Client(path);
    const output = await client.ask(formatRequest(site, isPut, isKept));
    const [, status = '', id] = /^Status: (\d+) (?:.*\r\nJob-Id: (\S+)\r\n)?/s.exec(output) ?? [];
    if (status !== '200') tally.failed.push(output.slice(0, 80) || 'the connection ended');
    if (isPut) tally.puts += 1;
    else if (id === undefined || tally.ids.has(id)) tally.repeated += 1;
    else tally.ids.add(id);
    if (!isKept) {
      client.close();
      client = undefined;
    }
  }
  client?.close();
}

function formatRequest(site: Site, isPut: boolean, keepConnection: boolean): Buffer {
  const query = 'VERSION=webjob+1.4.0&SYSTEM=soak&CLIENTID=client1&FILENAME=host.sh';
  const put = `&RUNTYPE=snapshot&STDOUT_LENGTH=${BODY.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  const variables = {
    WEBJOB_PROPERTIES_FILE: site.propertiesFile,
    REMOTE_USER: 'client1',
    REMOTE_ADDR: '127.0.0.1',
    REQUEST_METHOD: isPut ? 'PUT' : 'GET',
    QUERY_STRING: isPut ? query + put : query,
    CONTENT_LENGTH: String(isPut ? BODY.length : 0),
    SERVER_PROTOCOL: 'HTTP/1.1',
  };
  const record = (type: number, content: Buffer): Buffer => formatRecord({ type, requestId: 1, content });
  return Buffer.concat([
    record(RECORD_TYPES.beginRequest, formatBeginning({ role: RESPONDER_ROLE, keepConnection })),
    record(RECORD_TYPES.params, formatPairs(Object.entries(variables))),
    record(RECORD_TYPES.params, Buffer.alloc(0)),
    ...(isPut ? formatStream(RECORD_TYPES.stdin, 1, BODY) : []),
    record(RECORD_TYPES.stdin, Buffer.alloc(0)),
  ]);
}

class Client {
  readonly #socket: Socket;
  readonly #parser = new RecordParser();
  #output: Buffer[] = [];
  #answered = (_output: string): void => {};

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => this.#answered(''));
    this.#socket.on('data', (bytes: Buffer) => {
      for (const { type, content } of this.#parser.push(bytes)) {
        if (type === RECORD_TYPES.stdout) this.#output.push(Buffer.from(content));
        else if (type === RECORD_TYPES.endRequest) this.#answered(Buffer.concat(this.#output).toString('latin1'));
      }
    });
  }

  ask(request: Buffer): Promise<string> {
    this.#output = [];
    return new Promise((resolve) => {
      this.#answered = resolve;
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

/**
 * Removes the uploads and rotates the log, as an administrator and logrotate do; returns the number
 * of complete uploads.
 */
function clear(site: Site): number {
  const names = readdirSync(site.incoming);
  for (const name of names) rmSync(`${site.incoming}/${name}`);
  const { uid, gid } = statSync(site.logFile);
  renameSync(site.logFile, `${site.logFile}.1`);
  writeFileSync(site.logFile, '');
  chownSync(site.logFile, uid, gid);
  return names.filter((name) => name.endsWith('.rdy')).length;
}

function print(cells: (string | number)[]): void {
  process.stdout.write(`${cells.map((cell) => String(cell).padStart(10)).join('')}\n`);
}

await main();
