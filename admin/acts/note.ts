// Notes on jobs: entries of the custody record, which cannot be removed without a trace.
import { Failure } from '../../cli/failure.ts';
import { HIDDEN_CHARACTERS } from '../../cli/output.ts';
import { type Logs, operatorName, recordEvent } from '../../evidence/events.ts';

const MAX_CHARACTERS = 1000;

export interface Note {
  /** The job id in the escaped form of the log. */
  job: string;
  text: string;
  by: string;
}

/** Checks that a note is one line of text. Throws Failure `usage`. */
export function parseNote(text: string, what = 'the note'): string {
  const line = text.trim();
  if (line === '') throw new Failure('usage', `${what} is empty`);
  if (/[\t\n]/.test(line) || line.search(HIDDEN_CHARACTERS) >= 0)
    throw new Failure('usage', `${what} is not one line of text`);
  if ([...line].length > MAX_CHARACTERS)
    throw new Failure('usage', `${what} is longer than ${MAX_CHARACTERS} characters`);
  return line;
}

/**
 * Records a note, which is on disk when this returns. `by` is the person on whose behalf it is
 * recorded, by default the user who runs this process.
 */
export function addNote(settings: Logs, job: string, text: string, by = operatorName()): Note {
  recordEvent(settings, { event: 'note', jobId: job, text }, by);
  return { job, text, by };
}
