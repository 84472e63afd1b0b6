// What every page needs to be made: the site, its store, the query of the request, and how pages point at each other.
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
  /** Undefined where no acts are set up. */
  acts: ActPlace | undefined;
  database: Database;
  links: Links;
  book: Book;
  params: URLSearchParams;
  now: Date;
  /** When to stop looking, by performance.now(): a reader must not hold the server. */
  deadline: number;
}

/** So long a page may look for what it shows. */
const LOOK_MS = 1500;

export function makeContext(
  { site, acts }: Pick<Place, 'site' | 'acts'>,
  database: Database,
  base: string,
  params: URLSearchParams,
): Context {
  const links = makeLinks(base);
  const book: Book = {
    ...{ useGmt: site.settings.useGMT, now: new Date() },
    clientHref: (clientId) => links.client(clientId),
    commandHref: (command) => links.command(command),
    jobHref: (job: Job) => links.job(job),
  };
  return { site, acts, database, links, book, params, now: book.now, deadline: performance.now() + LOOK_MS };
}

/** What a request asks for and cannot have: its status, and a sentence for a reader. */
export class NotShown extends Error {
  readonly status: 400 | 403 | 404;
  constructor(status: 400 | 403 | 404, message: string) {
    super(message);
    this.status = status;
  }
}

/** Throws NotShown for one that was not made here. */
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
    // Said below.
  }
  throw new NotShown(400, 'The place in the list is not one that this page has made.');
}

export function formatKey(key: ScanKey): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url');
}

/** What a page says in place of what could not be read. */
export function formatFailure(failure: Failure): Markup {
  return html`<p class="state bad">${failure.message}</p>`;
}
