// The sites of a command that only reads jobs: from their own files, or from a database that they
// are pushed to.
import type { Command } from 'commander';
import { readSettings } from '../../cgi/settings.ts';
import { Failure } from '../../cli/failure.ts';
import type { Connection } from '../../ledger/postgres/connect.ts';
import type { SiteSettings } from '../../ledger/postgres/push.ts';
import { globalOptions, openSites, type Site } from './site.ts';

/**
 * Opens the sites. Throws Failure `settings`, `usage`, and `failed` when the database cannot be
 * reached.
 */
export async function openSitesOrLedger(command: Command): Promise<Site[]> {
  const { ledger, config } = globalOptions(command);
  if (ledger === undefined) return openSites(command);
  if (config) throw new Failure('usage', '--config and --ledger cannot be combined', 'use one of them');
  // Loaded on demand, because most commands do not use it.
  const { openLedger } = await import('../../ledger/postgres/ask.ts');
  return await openLedger(ledger, siteElsewhere);
}

/** A site whose files are on another machine; nothing on this machine is read for it. */
export function siteElsewhere({ baseDirectory, incomingDirectory, putNameFormat, servers }: SiteSettings): Site {
  const { settings } = readSettings(undefined);
  return {
    propertiesFile: undefined,
    settings: { ...settings, baseDirectory, incomingDirectory, putNameFormat },
    servers,
    label: undefined,
  };
}

/**
 * Works with a database of many sites, which must have its tables, except for `ledger setup`.
 * Throws Failure `usage` and `failed`.
 */
export async function withLedger<Result>(
  url: string,
  act: (client: Connection) => Promise<Result>,
  hasTables = true,
): Promise<Result> {
  const { connect, failureOf, requireVersion } = await import('../../ledger/postgres/connect.ts');
  const client = await connect(url);
  try {
    if (hasTables) await requireVersion(client);
    return await act(client);
  } catch (error) {
    throw failureOf(error, url);
  } finally {
    await client.end().catch(() => {});
  }
}
