// hosts.access: the addresses from which a client id may connect (docs/protocol.md, section 4).

import { isClientId } from 'webjob-protocol';
import { readKept } from './kept-file.ts';
import { Refusal } from './refusal.ts';
import type { ServerSettings } from './setting-table.ts';

/** The networks of each client id, as written in the file. */
export type HostList = ReadonlyMap<string, readonly string[]>;

/**
 * Checks the address of a client. Throws Refusal 472 for an address that is not on the client's
 * list, 550 for a missing or malformed file.
 */
export function checkAddress(settings: ServerSettings, clientId: string, address: string | undefined): void {
  let allowed: boolean;
  try {
    const list = readHostList(`${settings.configDirectory}/nph-webjob/hosts.access`, clientId);
    allowed = isListed(list, clientId, address ?? '');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Refusal(550, `hosts.access: ${code ?? message}`);
  }
  if (!allowed) throw new Refusal(472, 'the address is not on the list');
}

/**
 * Reads the list; entries of other clients may be left out. Throws SyntaxError and errors of system
 * calls.
 */
export function readHostList(path: string, clientId: string): HostList {
  return readKept(path, (text, isKept) => parseHostList(text, isKept ? undefined : clientId));
}

const GROUP = '[0-9A-Fa-f]{1,4}';
const OCTET = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const IPV4 = `${OCTET}(?:\\.${OCTET}){3}(?:/(?:3[0-2]|[12]?[0-9]))?`;
const GROUPS = `${GROUP}(?::${GROUP})*`;
const IPV6 = `(?!(?:[0-9A-Fa-f]{0,4}:){8})(?:${GROUPS})?::(?:${GROUPS})?(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?`;
const NETWORK = `(?:${IPV4}|${IPV6})`;
const STATEMENT = `[A-Za-z0-9_-]{1,64}[ \\t]*=[ \\t]*${NETWORK}(?:[ \\t]*,[ \\t]*${NETWORK})*`;
/**
 * Matches almost all allowed lines; the others are parsed separately, which takes ten times as
 * long.
 */
const PLAIN_LINE = `[ \\t]*(?:${STATEMENT})?[ \\t\\r]*(?:#[^\\n]*)?\\n`;
const LINES_AT_ONCE = 256;

/**
 * Parses the clients and networks of a list, or with `only`, those of one client in a tenth of the
 * time. Lines are `clientid=CIDR[,CIDR...]`, comments begin with `#`, and several lines of one
 * client add up. Throws a SyntaxError that names the first malformed line, also for lines of other
 * clients.
 */
export function parseHostList(text: string, only?: string): HostList {
  const list = new Map<string, string[]>();
  const others = only === undefined ? undefined : linesOfOthers(only);
  for (let at = 0; at < text.length; ) {
    if (others) {
      others.lastIndex = at;
      if (others.test(text)) {
        at = others.lastIndex;
        continue;
      }
    }
    const end = text.indexOf('\n', at);
    const statement = parseLine(text.slice(at, end < 0 ? undefined : end));
    if (!statement) throw new SyntaxError(`line ${text.slice(0, at).split('\n').length} is not clientid=CIDR`);
    at = end < 0 ? text.length : end + 1;
    const [id, networks] = statement;
    if (id === '') continue;
    const own = list.get(id);
    if (own) own.push(...networks);
    else list.set(id, networks);
  }
  return list;
}

/**
 * Matches as many plain lines of other clients as possible. The stack of a regular expression
 * limits their number.
 */
function linesOfOthers(clientId: string): RegExp {
  const own = `[ \\t]*${clientId}[ \\t]*=`;
  return new RegExp(`(?:(?!${own})${PLAIN_LINE}){1,${LINES_AT_ONCE}}`, 'y');
}

/**
 * Parses a line. Returns an empty id for a blank line or a comment, undefined for a malformed line.
 */
function parseLine(line: string): [id: string, networks: string[]] | undefined {
  const statement = line.replace(/#.*$/s, '').trim();
  if (statement === '') return ['', []];
  const [id = '', rest = ''] = statement.split(/\s*=\s*(.*)/s);
  const networks = rest.split(/\s*,\s*/);
  return isClientId(id) && networks.every((network) => parseNetwork(network)) ? [id, networks] : undefined;
}

interface Network {
  address: string;
  bits: number;
  family: 'ipv4' | 'ipv6';
}

/** Parses an address, or a network as `ADDRESS/BITS`; undefined for anything else. */
function parseNetwork(text: string): Network | undefined {
  const [, address = '', given] = /^([0-9a-f.:]+)(?:\/([0-9]{1,3}))?$/i.exec(text) ?? [];
  const [family, version, width] = address.includes(':') ? (['ipv6', 6, 128] as const) : (['ipv4', 4, 32] as const);
  const bits = Number(given ?? width);
  return bits <= width && loadNet().isIP(address) === version ? { address, bits, family } : undefined;
}

/** Whether the list allows a client to connect from an address. */
export function isListed(list: HostList, clientId: string, address: string): boolean {
  const networks = list.get(clientId);
  if (networks === undefined) return false;
  const { BlockList, isIP } = loadNet();
  // A zone id says nothing about the network. BlockList treats an IPv4 peer in IPv6 form, as httpd
  // reports it on a dual-stack socket, as the same address.
  const peer = address.replace(/%.*$/, '');
  if (isIP(peer) === 0) return false;
  const own = new BlockList();
  for (const network of networks) {
    const { address: net, bits, family } = parseNetwork(network) as Network;
    own.addSubnet(net, bits, family);
  }
  return own.check(peer, isIP(peer) === 4 ? 'ipv4' : 'ipv6');
}

/**
 * Loads node:net only when a list is checked, because loading it costs more than the rest of the
 * check.
 */
function loadNet(): typeof import('node:net') {
  return process.getBuiltinModule('node:net');
}
