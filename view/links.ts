// The addresses of pages, below the path at which httpd serves the view.
import { NOT_APPLICABLE } from 'webjob-protocol';
import type { Job } from '../ledger/job.ts';

/** The parts of a job's address: its id or, without one, its time, client and command. */
export type NamedJob = Pick<Job, 'jobId'> & Partial<Pick<Job, 'at' | 'clientId' | 'command'>>;

export type Query = Readonly<Record<string, string | number | undefined>>;

/** The addresses of pages, safe to be used in links. */
export interface Links {
  /** The path of the view, without a slash at the end. */
  base: string;
  page(path: string, query?: Query): string;
  client(clientId: string, query?: Query): string;
  command(command: string, query?: Query): string;
  job(job: NamedJob, query?: Query): string;
  stream(job: NamedJob, name: string): string;
  /** The page of acts on a job, which httpd reserves for users who may act. */
  act(job: NamedJob): string;
}

/**
 * Replaces a name in a path when it is in the query: an id may contain slashes, and some jobs have
 * none.
 */
export const UNNAMED = '-';

/** Names that are safe in a path, whatever proxies there are between user and server. */
const PLAIN = /^(?!\.+$)[A-Za-z0-9_.+:-]{1,1024}$/;

/**
 * A name as a segment of a path. One that ends like a format gets the extension of pages:
 * `report.json` is at `report.json.html`.
 */
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
  const toJob = (folder: string, job: NamedJob, query: Query = {}): string => {
    const { jobId, clientId, command } = job;
    if (jobId !== undefined && jobId !== NOT_APPLICABLE) return to(folder, jobId, query);
    return page(`${folder}/${UNNAMED}`, { at: isoOf(job), client: clientId, command, ...query });
  };
  return {
    base,
    page,
    client: (clientId, query) => to('/client', clientId, query),
    command: (command, query) => to('/command', command, query),
    job: (job, query) => toJob('/job', job, query),
    stream: (job, name) => toJob(`/stream/${name}`, job),
    act: (job) => toJob('/act/job', job),
  };
}

/** The time of a job in the form of the store. */
export function isoOf({ at }: Partial<Pick<Job, 'at'>>): string {
  return !at || Number.isNaN(at.getTime()) ? '' : at.toISOString();
}

/** The address of the same page for programs, with the extension `json`. */
export function asFormat(href: string, format: 'json'): string {
  return href.replace(/(?:\.html)?(\?|$)/, `.${format}$1`);
}
