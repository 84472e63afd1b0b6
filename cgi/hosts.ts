// hosts.access: from which addresses a client id may come (docs/protocol.md, section 4).

import { readFileSync } from 'node:fs';
import { isClientId } from 'webjob-protocol';
import type { ServerSettings } from './controls.ts';
import { Refusal } from './refusal.ts';

/** Throws Refusal 472 for an address that is not on the client's list, 550 for a file that is missing or malformed. */
export function checkAddress(settings: ServerSettings, clientId: string, address: string | undefined): void {
  let allowed: boolean;
  try {
    const text = readFileSync(`${settings.configDirectory}/nph-webjob/hosts.access`, 'utf8');
    allowed = isListed(text, clientId, address ?? '');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Refusal(550, `hosts.access: ${code ?? message}`);
  }
  if (!allowed) throw new Refusal(472, 'the address is not on the list');
}

/**
 * True when the list lets the client come from the address. Lines are `clientid=CIDR[,CIDR...]`, comments begin with `#`, several lines of
 * one client add up. Throws SyntaxError naming the first line that is malformed, whoever's it is.
 */
export function isListed(text: string, clientId: string, address: string): boolean {
  // Loading node:net costs more than the rest of the check, so only who turned the list on pays for it.
  const { BlockList, isIP } = process.getBuiltinModule('node:net');
  const own = new BlockList();
  for (const [index, line] of text.split('\n').entries()) {
    const statement = line.replace(/#.*$/s, '').trim();
    if (statement === '') continue;
    const [id = '', networks = ''] = statement.split(/\s*=\s*(.*)/s);
    const list = id === clientId ? own : new BlockList();
    const isWell = isClientId(id) && networks.split(/\s*,\s*/).every((network) => addNetwork(list, network));
    if (!isWell) throw new SyntaxError(`line ${index + 1} is no clientid=CIDR`);
  }
  // A zone says nothing of the network. An IPv4 peer in IPv6 spelling, as httpd on a dual-stack socket has it, is the same for BlockList.
  const peer = address.replace(/%.*$/, '');
  return isIP(peer) !== 0 && own.check(peer, isIP(peer) === 4 ? 'ipv4' : 'ipv6');
}

type Networks = { addSubnet(address: string, bits: number, family: 'ipv4' | 'ipv6'): void };

/** Adds an address, or one with the number of its leading bits; false for what is neither. */
function addNetwork(list: Networks, text: string): boolean {
  const [, address = '', bits] = /^([0-9a-f.:]+)(?:\/([0-9]{1,3}))?$/i.exec(text) ?? [];
  const [family, width] = address.includes(':') ? (['ipv6', 128] as const) : (['ipv4', 32] as const);
  try {
    list.addSubnet(address, Number(bits ?? width), family);
    return true;
  } catch {
    return false;
  }
}
