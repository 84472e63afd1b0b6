// Finds every way to the script that httpd's configuration opens: in each virtual host, by
// ScriptAlias, Alias, DocumentRoot or FastCGI, through links, and to copies of it.
import { closeSync, openSync, readdirSync, readFileSync, readSync, realpathSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Directive, splitArguments } from './httpd.ts';

/** A virtual host, or the main server. */
export interface Server {
  /** `VirtualHost *:443`; `the main server`. */
  label: string;
  /** The addresses on which the server listens. */
  addresses: { host: string; port: number }[];
  /** The host name that a request must have. */
  serverName: string | undefined;
  isTls: boolean;
}

export interface Way {
  server: Server;
  path: string;
  /** The file at the end of the way; undefined for a socket. */
  file: string | undefined;
}

interface Mapping {
  path: string;
  /** The target that the directive names; undefined when requests go to the path itself. */
  target: string | undefined;
}

const MAX_ENTRIES = 20_000;
const MAX_DEPTH = 6;
export const MAX_SCRIPT_BYTES = 2_000_000;
/** A text in every version of the script, and in few other files. */
export const SCRIPT_MARK = 'WEBJOB_PROPERTIES_FILE';

/** All ways, and the places that could not be searched. */
export interface Ways {
  servers: Server[];
  ways: Way[];
  gaps: string[];
}

export function findWays(directives: readonly Directive[]): Ways {
  const listens = directives.filter(({ name }) => name === 'Listen').map(({ value }) => parseAddress(value));
  const sections = [...new Set(directives.flatMap(({ sections: [first = ''] }) => virtualHostOf(first)))];
  const taken = new Set(sections.flatMap((section) => hostsOf(section).map(({ port }) => port)));
  const gaps: string[] = [];
  const scanner = makeScanner(gaps);
  const servers = [undefined, ...sections].map((section) => {
    const own = directives.filter(({ sections: [first = ''] }) => {
      const host = virtualHostOf(first)[0];
      return host === undefined || host === section;
    });
    const addresses =
      section === undefined
        ? listens.filter(({ port }) => !taken.has(port) && !taken.has(undefined))
        : findAddresses(section, listens);
    return { server: describeServer(section, own, addresses), own };
  });
  const ways = servers.flatMap(({ server, own }) =>
    findMappings(own).flatMap(({ path, target }): Way[] => {
      if (target === undefined) return [{ server, path, file: undefined }];
      return scanner(target).map((name) => {
        return { server, path: `${path.replace(/\/$/, '')}${name}`, file: `${target}${name}` };
      });
    }),
  );
  return { servers: servers.map(({ server }) => server), ways, gaps };
}

const virtualHostOf = (section: string): string[] => (section.startsWith('VirtualHost') ? [section] : []);

/** The addresses of `VirtualHost 192.0.2.1:443 *:80`; a port is undefined for any. */
function hostsOf(section: string): { host: string; port: number | undefined }[] {
  return splitArguments(section)
    .slice(1)
    .map((text) => {
      const [, host = '', port] = /^(\[.*\]|[^:]*)(?::(\d+|\*))?$/.exec(text) ?? [];
      return { host, port: port === undefined || port === '*' ? undefined : Number(port) };
    });
}

/**
 * Parses `443 https`, `127.0.0.1:80`, `[::1]:80`. An address without a host is this machine's own.
 */
function parseAddress(value: string): { host: string; port: number } {
  const [, host, port] = /^(?:(\[.*\]|[^:\s]*):)?(\d+)/.exec(splitArguments(value)[0] ?? '') ?? [];
  return { host: toHost(host), port: Number(port ?? 80) };
}

function toHost(text: string | undefined): string {
  const host = (text ?? '').replace(/^\[|\]$/g, '');
  if (host === '::') return '::1';
  return /^(?:|\*|_default_|0\.0\.0\.0)$/.test(host) ? '127.0.0.1' : host;
}

function findAddresses(section: string, listens: readonly { host: string; port: number }[]): Server['addresses'] {
  return hostsOf(section).flatMap(({ host, port }) =>
    listens
      .filter((listen) => port === undefined || listen.port === port)
      .map((listen) => (/^(?:\*|_default_)?$/.test(host) ? listen : { host: toHost(host), port: listen.port })),
  );
}

/** The last directive of a name outside of all sections except the virtual host's. */
function findSetting(own: readonly Directive[], name: string): string | undefined {
  const isPlain = ({ sections }: Directive): boolean =>
    sections.length === 0 || (sections.length === 1 && virtualHostOf(sections[0] ?? '').length === 1);
  const found = own.filter((one) => one.name.toLowerCase() === name.toLowerCase() && isPlain(one));
  // The virtual host's own directive takes precedence over the main server's, in whatever order.
  return (found.findLast(({ sections }) => sections.length > 0) ?? found.at(-1))?.value;
}

function describeServer(
  section: string | undefined,
  own: readonly Directive[],
  addresses: Server['addresses'],
): Server {
  const name = findSetting(own, 'ServerName') ?? findSetting(own, 'ServerAlias')?.split(/\s/)[0];
  return {
    label: section ?? 'the main server',
    addresses,
    serverName: name?.replace(/^\w+:\/\//, '').replace(/:\d+$/, ''),
    isTls: /^on$/i.test(findSetting(own, 'SSLEngine') ?? ''),
  };
}

/** The mappings of URL paths to the disk, and to FastCGI sockets. */
function findMappings(own: readonly Directive[]): Mapping[] {
  const folders = own.flatMap(({ name, value, sections }): Mapping[] => {
    const [first = '', second = ''] = splitArguments(value);
    if (/^(?:Script)?Alias$/i.test(name)) return [{ path: first, target: toPath(second) }];
    // For a pattern, the part before its first group.
    if (/^(?:Script)?AliasMatch$/i.test(name))
      return [{ path: first.replace(/^\^/, '').replace(/[(\\[.$].*$/s, ''), target: toPath(second.split('$')[0]) }];
    if (/^ProxyPass$/i.test(name) && /fcgi:/.test(value)) return [{ path: first, target: undefined }];
    const [kind = '', location = ''] = splitArguments(sections.at(-1) ?? '');
    if (/^SetHandler$/i.test(name) && /fcgi:/.test(value) && kind === 'Location')
      return [{ path: location, target: undefined }];
    return [];
  });
  const root = findSetting(own, 'DocumentRoot');
  return [...folders, ...(root === undefined ? [] : [{ path: '/', target: toPath(splitArguments(root)[0]) }])];
}

function toPath(text = ''): string {
  return resolve('/', text).replace(/\/$/, '');
}

/**
 * Returns a function that finds the script at or below a path, as paths relative to it:
 * `/webjob/nph-webjob.cgi`, or empty.
 */
function makeScanner(gaps: string[]): (place: string) => string[] {
  const known = new Map<string, string[]>();
  return (place) => {
    const found = known.get(place) ?? scan(place, gaps);
    known.set(place, found);
    return found;
  };
}

function scan(place: string, gaps: string[]): string[] {
  const found: string[] = [];
  const seen = new Set<string>();
  let entries = 0;
  const look = (path: string, name: string, depth: number): void => {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats?.isFile() && isScript(path, stats)) found.push(name);
    if (!stats?.isDirectory()) return;
    const real = realpathSync(path);
    if (seen.has(real)) return;
    seen.add(real);
    for (const entry of readdirSync(path)) {
      if (++entries > MAX_ENTRIES || depth === MAX_DEPTH) {
        gaps.push(place);
        return;
      }
      attempt(() => look(join(path, entry), `${name}/${entry}`, depth + 1));
    }
  };
  attempt(() => look(place, '', 0));
  return found;
}

/** Ignores paths that cannot be read: circular links, directories of other users. */
function attempt(work: () => void): void {
  try {
    work();
  } catch {
    // httpd could not serve it either.
  }
}

function isScript(path: string, { size, mode }: { size: number; mode: number }): boolean {
  if ((mode & 0o111) === 0 || size > MAX_SCRIPT_BYTES) return false;
  const head = Buffer.alloc(2);
  const fd = openSync(path, 'r');
  try {
    if (readSync(fd, head) !== 2 || head.toString('latin1') !== '#!') return false;
  } finally {
    closeSync(fd);
  }
  // bin/nph-webjob is a launcher, which only its name identifies.
  return readFileSync(path, 'latin1').includes(SCRIPT_MARK) || /nph-webjob[^/]*$/.test(realpathSync(path));
}
