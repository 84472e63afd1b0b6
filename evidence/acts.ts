// The acts of operators on jobs, clients and assignments, read from the custody record of
// webjobctl: notes, holds, checks, downloads and evidence packages.
import { closeSync, existsSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import { listCustodyFiles, searchChain } from 'webjob-locker';
import { encodeField } from 'webjob-protocol';
import { WRITER } from './events.ts';
import { openCustodyFile } from './records.ts';

const ACTS = ['note', 'hold', 'release', 'verify', 'download', 'evidence', 'assign', 'assign-change'] as const;

/** An act on a job, an assignment or a client. */
export interface Act {
  event: (typeof ACTS)[number];
  /** `client` for a hold on all uploads of a client. */
  kind: 'job' | 'client' | 'assignment';
  id: string;
  /** The time of the act, in ISO 8601. */
  at: string;
  by: string;
  /** The text of a note, the reason for a hold, or the result of a check. */
  text: string;
}

/**
 * Every record of an act contains one of these texts; one text covers both events of assignments.
 */
export const ACT_TEXTS: readonly string[] = [
  ...new Set(ACTS.map((event) => `,"event":"${event.replace('-change', '')}`)),
];

/** The end of the part of a segment that was read. */
export interface ReadUpTo {
  /** Device and inode. */
  inode: string;
  to: number;
}

/** Acts that were read earlier, and how far each segment was read. */
export interface KeptActs {
  /** How far each segment was read, by its path. */
  read: ReadonlyMap<string, ReadUpTo>;
  /**
   * Returns the acts on one job, client or assignment, oldest first, each with the path of its
   * segment.
   */
  of(kind: Act['kind'], id: string): { act: Act; path: string }[];
}

/**
 * The acts of a site. Each call continues where the last one stopped, so a persistent process reads
 * every record once.
 */
export class Acts {
  readonly #folders: readonly string[];
  /** How far each segment was read, by path. */
  readonly #read = new Map<string, ReadUpTo>();
  /** Acts by kind and id, oldest first. */
  #acts = new Map<string, Act[]>();
  #kept: KeptActs | undefined;

  /**
   * @param folders the log directories of the site
   * @param kept acts that need not be read again
   */
  constructor(folders: readonly string[], kept?: KeptActs) {
    this.#folders = folders;
    this.#kept = kept;
  }

  /**
   * Returns the acts on a job and the holds of its client, oldest first. The job id is the one in
   * nph-webjob.log.
   */
  of({ jobId, clientId }: { jobId?: string | undefined; clientId?: string | undefined }): Act[] {
    this.#refresh();
    const own = jobId === undefined ? [] : this.#find('job', jobId);
    const clients = clientId === undefined ? [] : this.#find('client', clientId);
    if (clients.length === 0) return own;
    return [...own, ...clients].sort((a, b) => (a.at < b.at ? -1 : Number(a.at > b.at)));
  }

  /** Returns the acts on an assignment, oldest first. */
  ofAssignment(id: string): Act[] {
    this.#refresh();
    return this.#find('assignment', id);
  }

  #find(kind: Act['kind'], id: string): Act[] {
    // A segment that no longer exists does not count.
    const kept = this.#kept?.of(kind, id).filter(({ path }) => this.#read.has(path)) ?? [];
    return [...kept.map(({ act }) => act), ...(this.#acts.get(`${kind} ${id}`) ?? [])];
  }

  #refresh(): void {
    for (const folder of this.#folders) {
      if (!existsSync(folder)) continue;
      for (const { file, serverId } of listCustodyFiles(folder))
        if (serverId === WRITER) this.#readSegment(join(folder, file));
    }
  }

  /**
   * Reads the records appended to a segment; a segment that was replaced is read from its
   * beginning. Throws the error of a system call.
   */
  #readSegment(path: string): void {
    const fd = openCustodyFile(path);
    try {
      const stats = fstatSync(fd, { bigint: true });
      const [inode, size] = [`${stats.dev}:${stats.ino}`, Number(stats.size)];
      const known = this.#read.get(path) ?? this.#kept?.read.get(path);
      if (known && (known.inode !== inode || size < known.to)) {
        this.#kept = undefined;
        this.#read.clear();
        this.#acts = new Map();
        this.#refresh();
        return;
      }
      this.#read.set(path, known ?? { inode, to: 0 });
      if (known?.to === size) return;
      const links = searchChain(fd, known?.to ?? 0, ACT_TEXTS);
      let step = links.next();
      for (; !step.done; step = links.next()) for (const act of actsIn(step.value.facts ?? {})) this.#add(act);
      this.#read.set(path, { inode, to: step.value });
    } finally {
      closeSync(fd);
    }
  }

  #add(act: Act): void {
    const key = `${act.kind} ${act.id}`;
    const known = this.#acts.get(key);
    if (known) known.push(act);
    else this.#acts.set(key, [act]);
  }
}

/** An act in the form that JSON output and the view's API use. */
export function actJson({ event, kind, at, by, text }: Act): Record<string, string> {
  return { event, kind, at, by, text };
}

/** Whether the newest act about a hold set one, for the job or for its client. */
export function isHeld(acts: readonly Act[]): boolean {
  return (['job', 'client'] as const).some(
    (kind) => acts.findLast((act) => act.kind === kind && isHoldAct(act))?.event === 'hold',
  );
}

function isHoldAct({ event }: Act): boolean {
  return event === 'hold' || event === 'release';
}

/**
 * Returns the acts in a record of webjobctl. Any process that can write to the log directory can
 * append a record with any content, so every field is checked.
 */
export function actsIn(facts: Record<string, unknown>): Act[] {
  const text = (name: string): string => (typeof facts[name] === 'string' ? (facts[name] as string) : '');
  const event = ACTS.find((name) => name === facts.event);
  if (!event) return [];
  const act = { event, at: text('time'), by: text('by') };
  const job = (id: unknown, words: string): Act[] =>
    typeof id === 'string' && id !== '' ? [{ ...act, kind: 'job', id: logId(id), text: words }] : [];
  switch (event) {
    case 'note':
      return job(facts.jobId, text('text'));
    case 'hold':
    case 'release':
      if (facts.kind === 'job') return job(facts.id, text('reason'));
      return facts.kind === 'client' ? [{ ...act, kind: 'client', id: text('id'), text: text('reason') }] : [];
    case 'assign': {
      const { assignment: id } = (facts.assignment ?? {}) as { assignment?: unknown };
      return typeof id === 'string' ? [{ ...act, kind: 'assignment', id, text: '' }] : [];
    }
    case 'assign-change': {
      const words = [text('state'), text('reason')].filter(Boolean).join(': ');
      return [{ ...act, kind: 'assignment', id: text('id'), text: words }];
    }
    case 'verify':
      return job(facts.job, text('words'));
    case 'download':
      return job(facts.job, `.${text('stream')}`);
    case 'evidence': {
      const { jobs } = facts;
      const words = `package ${text('tagListSha256').slice(0, 16)}${text('caseNumber') === '' ? '' : `, case ${text('caseNumber')}`}`;
      return Array.isArray(jobs) ? jobs.flatMap((id) => job(id, words)) : [];
    }
  }
}

/**
 * Returns the escaped form that the log uses, for an id that an operator typed or that is already
 * escaped.
 */
function logId(id: string): string {
  return /%[0-9a-fA-F]{2}/.test(id) ? id : encodeField(id);
}
