// The requests of users for a job or an assignment within the last day, and their results, from the
// inbox and the answers.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { listIds, readAnswers } from '../admin/acts/answers.ts';
import { type ActAnswer, type ActName, actFile, parseRequest } from '../admin/acts/request.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatInstant } from '../pages/tables.ts';
import type { Context } from './context.ts';
import type { ActPlace } from './place.ts';

/** How long a stream may be downloaded after the download was recorded. */
export const TAKE_MS = 900_000;

/** The requests for a job or an assignment in the inbox. */
export function listWaiting({ inbox, answers }: ActPlace, subject: string): { at: Date; act: ActName; user: string }[] {
  const answered = new Set(listIds(answers, subject));
  return listIds(inbox, subject).flatMap((id) => {
    if (answered.has(id)) return [];
    const path = join(inbox, actFile(id));
    try {
      const { act, user } = parseRequest(readFileSync(path, 'utf8'));
      return [{ at: statSync(path).mtime, act, user }];
    } catch {
      // The request was carried out after the inbox was read.
      return [];
    }
  });
}

const WORDS: Record<ActName, string> = {
  verify: 'Verify',
  hold: 'Hold',
  release: 'Release',
  note: 'Note',
  download: 'Download',
  package: 'Evidence package',
  pause: 'Pause',
  cancel: 'Cancel',
};

/**
 * The requests for a job or an assignment within the last day and their results; undefined when
 * there are none.
 */
export function formatAsked(context: Context, subject: string, user?: string): Markup | undefined {
  const { acts: place, book, links } = context;
  if (!place) return undefined;
  const waiting = listWaiting(place, subject);
  const answers = readAnswers(place.answers, subject).sort((a, b) => (a.askedAt < b.askedAt ? -1 : 1));
  if (waiting.length + answers.length === 0) return undefined;
  const time = (at: string | Date): Markup => formatInstant(new Date(at), book);
  const way = ({ id, act, user: by, state, answeredAt }: ActAnswer): Markup | undefined => {
    const isTaken = act === 'download' && Date.parse(answeredAt) < context.now.getTime() - TAKE_MS;
    if (by !== user || state !== 'done' || !['download', 'package'].includes(act) || isTaken) return undefined;
    return html` <a href="${links.page(`/act/answer/${id}`)}" download>Download</a>`;
  };
  return html`<h2 id="asked">Asked for in the last day</h2>
<ul class="asked">${answers.map(
    (answer) =>
      html`<li><span class="state ${answer.state === 'done' ? 'good' : answer.state === 'failed' ? 'bad failed' : 'plain got'}">${answer.state}</span> ${WORDS[answer.act]}, asked ${time(answer.askedAt)} by ${answer.user}, answered ${time(answer.answeredAt)}: ${answer.words}${way(answer)}</li>
`,
  )}${waiting.map(
    ({ at, act, user: by }) =>
      html`<li><span class="state plain got">waits</span> ${WORDS[act]}, asked ${time(at)} by ${by}</li>
`,
  )}</ul>`;
}
