// Reads custody records for tests.
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Chain, custodyPath, type Link } from '../../cgi/locker/index.ts';
import type { Site } from '../../scripts/site.ts';

export function custodyOf(site: Site, serverId = 'server_1'): string {
  return custodyPath(join(site.base, 'logfiles'), serverId);
}

/** Walks a file: returns its records, the faults of its lines, and the links themselves. */
export function walk(path: string): { records: Record<string, unknown>[]; faults: Link[]; links: Link[] } {
  const fd = openSync(path, 'r');
  try {
    const chain = new Chain(fd);
    const links = [...chain.walk()];
    const faults = [...links.filter(({ fault }) => fault), ...chain.findTorn()];
    const records = links.flatMap(({ record }) => (record ? [JSON.parse(record.text)] : []));
    return { records, faults, links };
  } finally {
    closeSync(fd);
  }
}

/** The records of a file without faults. */
export function readRecords(path: string): Record<string, unknown>[] {
  const { records, faults } = walk(path);
  if (faults.length > 0) throw new Error(`${path}: ${JSON.stringify(faults)}`);
  return records;
}
