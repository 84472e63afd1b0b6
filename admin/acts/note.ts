// A note on a job: an entry of the custody record, which nobody can take out again without a trace.
import { Failure } from '../../cli/failure.ts';
import { HIDDEN_CHARACTERS } from '../../cli/output.ts';
import { type Logs, operatorName, recordEvent } from '../../evidence/events.ts';

const MAX_CHARACTERS = 1000;

export interface Note {
  /** As the log writes it. */
  job: string;
  text: string;
  by: string;
}

/** One line of text. Throws Failure `usage` for anything else. */
export function parseNote(text: string, what = 'the note'): string {
  const line = text.trim();
  if (line === '') throw new Failure('usage', `${what} is empty`);
  if (/[\t\n]/.test(line) || line.search(HIDDEN_CHARACTERS) >= 0)
    throw new Failure('usage', `${what} is not one line of text`);
  if ([...line].length > MAX_CHARACTERS)
    throw new Failure('usage', `${what} is longer than ${MAX_CHARACTERS} characters`);
  return line;
}

/** Puts it on record; on disk when this returns. `by`: for whom, else who runs this. */
export function addNote(settings: Logs, job: string, text: string, by = operatorName()): Note {
  recordEvent(settings, { event: 'note', jobId: job, text }, by);
  return { job, text, by };
}
