// Failures as an Atom feed (RFC 4287).
import { scanJobs } from '../ledger/scan.ts';
import { html } from '../pages/html.ts';
import { describeState, formatEnd } from '../pages/tables.ts';
import type { Context } from './context.ts';
import { isoOf } from './links.ts';

const ENTRIES = 50;

/**
 * Makes the feed. `origin` is the scheme and host of the request, because addresses in a feed are
 * absolute.
 */
export function failuresFeed({ database, site, links, deadline, now }: Context, origin: string): string {
  const jobs = [];
  for (const { job } of scanJobs(database, site, { states: ['failed', 'incomplete', 'refused'] }, 'time')) {
    if (job && !Number.isNaN(job.at.getTime())) jobs.push(job);
    if (jobs.length === ENTRIES || performance.now() > deadline) break;
  }
  const self = origin + links.page('/failures.atom');
  const [newest] = jobs;
  return html`<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
<title>Failures at ${site.settings.serverId}</title>
<id>${self}</id>
<link rel="self" href="${self}"/>
<link rel="alternate" type="text/html" href="${origin}${links.page('/jobs', { state: 'failed,incomplete,refused' })}"/>
<updated>${newest ? isoOf(newest) : now.toISOString()}</updated>
<author><name>webjob-view</name></author>
${jobs.map((job) => {
  const address = origin + links.job(job);
  const end = formatEnd(job);
  const what = `${job.command ?? 'unknown command'} on ${job.clientId ?? 'unknown client'}: ${describeState(job.state)}`;
  return html`<entry><title>${what}${end === '' ? '' : `, ${end}`}</title><id>${address}#${isoOf(job)}</id><link rel="alternate" type="text/html" href="${address}"/><updated>${isoOf(job)}</updated></entry>
`;
})}</feed>
`.text;
}
