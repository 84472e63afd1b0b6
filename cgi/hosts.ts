// hosts.access: from which addresses a client id may come (docs/protocol.md, section 4).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isClientId } from 'webjob-protocol';
import type { ServerSettings } from './controls.ts';
import { Refusal } from './refusal.ts';

/** Throws Refusal 472 for an address that is not on the client's list, 550 for a file that is missing or malformed. */
export function checkAddress(settings: ServerSettings, clientId: string, address: string | undefined): void {
  const path = join(settings.configDirectory, 'nph-webjob', 'hosts.access');
  let networks: Map<string, string[]>;
  try {
    networks = parseHosts(readFileSync(path, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Refusal(550, `EnableHostAccessList: hosts.access: ${code ?? message}`, { cause: error });
  }
  if (!isWithin(address ?? '', networks.get(clientId) ?? [])) throw new Refusal(472, 'the address is not on the list');
}

/**
 * The networks of every client: lines `clientid=CIDR[,CIDR...]`, comments from `#`; several lines of one client add up. Throws
 * SyntaxError naming the line.
 */
export function parseHosts(text: string): Map<string, string[]> {
  const networks = new Map<string, string[]>();
  for (const [index, line] of text.split('\n').entries()) {
    const statement = line.replace(/#.*$/s, '').trim();
    if (statement === '') continue;
    const [clientId = '', list = ''] = statement.split(/\s*=\s*(.*)/s);
    const given = list.split(',').map((network) => network.trim());
    if (!isClientId(clientId) || !given.every(isNetwork))
      throw new SyntaxError(`line ${index + 1} is no clientid=CIDR`);
    networks.set(clientId, [...(networks.get(clientId) ?? []), ...given]);
  }
  return networks;
}

/** Loading node:net costs more than the rest of the check, so only who turned the list on pays for it. */
const net = () => process.getBuiltinModule('node:net');

/** An address, or one with the number of its leading bits: `192.0.2.0/24`, `2001:db8::/32`. */
function isNetwork(text: string): boolean {
  const [, address = '', bits] = /^([^/%]+)(?:\/([0-9]{1,3}))?$/.exec(text) ?? [];
  const family = net().isIP(address);
  return family !== 0 && Number(bits ?? 0) <= (family === 4 ? 32 : 128);
}

function isWithin(address: string, networks: string[]): boolean {
  const { BlockList, isIP } = net();
  const list = new BlockList();
  const familyOf = (text: string): 'ipv4' | 'ipv6' => (isIP(text) === 4 ? 'ipv4' : 'ipv6');
  for (const network of networks) {
    const [start = '', bits] = network.split('/');
    list.addSubnet(start, Number(bits ?? (isIP(start) === 4 ? 32 : 128)), familyOf(start));
  }
  // httpd on a dual-stack socket may report an IPv4 peer in IPv6 spelling; a zone says nothing of the network.
  const peer = address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '');
  return isIP(peer) !== 0 && list.check(peer, familyOf(peer));
}
