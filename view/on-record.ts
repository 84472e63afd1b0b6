// The acts of operators, from the custody record of the site.
import { Acts } from '../evidence/acts.ts';
import { logFolders } from '../ledger/site.ts';
import type { Context } from './context.ts';

let kept: { folders: string; acts: Acts } | undefined;

/** Returns the acts of a site. Records that were read are kept for the next request. */
export function actsOf(site: Context['site']): Acts {
  const folders = logFolders(site);
  const name = folders.join('\n');
  if (kept?.folders !== name) kept = { folders: name, acts: new Acts(folders) };
  return kept.acts;
}
