// Where the pages are, below the path at which httpd has the program.
import { NOT_APPLICABLE } from 'webjob-protocol';
import type { Job } from '../ledger/job.ts';

export type Query = Readonly<Record<string, string | number | undefined>>;

/** Where pages lead; all of it can be put into a link as it is. */
export interface Links {
  /** Without a slash at its end. */
  base: string;
  page(path: string, query?: Query): string;
  client(clientId: string, query?: Query): string;
  command(command: string, query?: Query): string;
  job(job: Job, query?: Query): string;
  stream(job: Job, name: string): string;
  /** The page of acts on it, which httpd keeps for those who may. */
  act(job: Job): string;
}

/** Stands in a path for a name that is in the query: an id may hold slashes, and some jobs have none. */
export const UNNAMED = '-';

/** What a path can hold as it is, whatever stands between the reader and us. */
const PLAIN = /^(?!\.+$)[A-Za-z0-9_.+:-]{1,1024}$/;

/** A name as a part of a path. One that ends like a format is given that of pages: `report.json` is at `report.json.html`. */
function segment(name: string): string {
  return name + (/\.(?:json|csv|html)$/.test(name) ? '.html' : '');
}

function named(folder: string, name: string): [path: string, query: Query] {
  return PLAIN.test(name) && name !== UNNAMED ? [`${folder}/${segment(name)}`, {}] : [`${folder}/${UNNAMED}`, { name }];
}

export function makeLinks(base: string): Links {
  const page: Links['page'] = (path, query = {}) => {
    const params = new URLSearchParams();
    for (const [name, value] of Object.entries(query))
      if (value !== undefined && value !== '') params.set(name, String(value));
    const text = params.toString();
    return `${base}${path}${text === '' ? '' : `?${text}`}`;
  };
  const to = (folder: string, name: string, query: Query = {}): string => {
    const [path, own] = named(folder, name);
    return page(path, { ...own, ...query });
  };
  const toJob = (folder: string, job: Job, query: Query = {}): string => {
    const { jobId, clientId, command } = job;
    if (jobId !== undefined && jobId !== NOT_APPLICABLE) return to(folder, jobId, query);
    return page(`${folder}/${UNNAMED}`, { at: isoOf(job), client: clientId, command, ...query });
  };
  return {
    ...{ base, page },
    client: (clientId, query) => to('/client', clientId, query),
    command: (command, query) => to('/command', command, query),
    job: (job, query) => toJob('/job', job, query),
    stream: (job, name) => toJob(`/stream/${name}`, job),
    act: (job) => toJob('/act/job', job),
  };
}

/** When a job was, as the store has it. */
export function isoOf({ at }: Pick<Job, 'at'>): string {
  return Number.isNaN(at.getTime()) ? '' : at.toISOString();
}

/** The same page for a program: `json`. */
export function asFormat(href: string, format: 'json'): string {
  return href.replace(/(?:\.html)?(\?|$)/, `.${format}$1`);
}
