// The sources of every page: the site, its store, the query of the request, and the links between
// pages.
import type { Failure } from '../cli/failure.ts';
import type { Job } from '../ledger/job.ts';
import type { ScanKey } from '../ledger/scan.ts';
import type { Site } from '../ledger/site.ts';
import type { Database } from '../ledger/sqlite.ts';
import { html, type Markup } from '../pages/html.ts';
import type { Book } from '../pages/tables.ts';
import { type Links, makeLinks } from './links.ts';
import type { ActPlace, Place } from './place.ts';

export interface Context {
  site: Site;
  /** The directories of acts; undefined when acts are not set up. */
  acts: ActPlace | undefined;
  database: Database;
  links: Links;
  book: Book;
  params: URLSearchParams;
  now: Date;
  /** When to stop reading, by performance.now(), so that one user cannot occupy the server. */
  deadline: number;
}

/** How long a page may read. */
const LOOK_MS = 1500;

export function makeContext(
  { site, acts }: Pick<Place, 'site' | 'acts'>,
  database: Database,
  base: string,
  params: URLSearchParams,
): Context {
  const links = makeLinks(base);
  const book: Book = {
    useGmt: site.settings.useGMT,
    now: new Date(),
    clientHref: (clientId) => links.client(clientId),
    commandHref: (command) => links.command(command),
    jobHref: (job: Job) => links.job(job),
  };
  return { site, acts, database, links, book, params, now: book.now, deadline: performance.now() + LOOK_MS };
}

/** A request that cannot be answered: its status, and a sentence for the user. */
export class NotShown extends Error {
  readonly status: 400 | 403 | 404;
  constructor(status: 400 | 403 | 404, message: string) {
    super(message);
    this.status = status;
  }
}

/** Parses a key. Throws NotShown for one that this program did not make. */
export function parseKey(text: string | null): ScanKey | undefined {
  if (!text) return undefined;
  try {
    const key: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
    if (Array.isArray(key) && key.length === 3) {
      const [value, at, id] = key as unknown[];
      if (typeof value === 'string' && typeof at === 'string' && Number.isSafeInteger(id))
        return [value, at, id as number];
    }
  } catch {
    // The check below reports this error too.
  }
  throw new NotShown(400, 'The position in the list is not valid.');
}

export function formatKey(key: ScanKey): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url');
}

/** Shown in place of something that cannot be read. */
export function formatFailure(failure: Failure): Markup {
  return html`<p class="state bad">${failure.message}</p>`;
}
