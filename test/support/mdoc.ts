// Reads the man pages in docs/man as far as the tests need it: sections, lists and displays, as
// plain text. Knows only the macros of mdoc(7) that those pages use.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export const MAN_FOLDER = join(import.meta.dirname, '..', '..', 'docs', 'man');

/** `nph-webjob.8` and the others. */
export const MAN_PAGES = readdirSync(MAN_FOLDER).sort();

/** The content of a display, from the comment before it: `nph-webjob.cfg`, `log`. */
export interface Display {
  kind: string;
  text: string;
}

/**
 * Macros that mark up words; without them the text is what a reader sees, except for quotes and
 * parentheses.
 */
const INLINE = new Set('Ar Cm Dv Ev Fl Ic Li Ns No Oc Oo Op Pa Pq Ql Sc So Xr'.split(' '));

/** The lines of a page. */
export function readPage(name: string): string[] {
  return readFileSync(join(MAN_FOLDER, name), 'utf8').split('\n');
}

/**
 * The lines of the section, or with `Ss` the subsection, of that title. Throws Error when there is
 * none.
 */
export function readSection(lines: readonly string[], title: string, macro: 'Sh' | 'Ss' = 'Sh'): string[] {
  const start = lines.indexOf(`.${macro} ${title}`);
  if (start < 0) throw new Error(`no ${title} in the page`);
  const end = lines.findIndex((line, index) => index > start && /^\.S[hs] /.test(line) && !isWithin(macro, line));
  return lines.slice(start + 1, end < 0 ? undefined : end);
}

function isWithin(macro: 'Sh' | 'Ss', line: string): boolean {
  return macro === 'Sh' && line.startsWith('.Ss ');
}

/** The titles of the subsections. */
export function readTitles(section: readonly string[]): string[] {
  return section.flatMap((line) => /^\.Ss (.*)$/.exec(line)?.[1] ?? []);
}

/** The heads of list items as text: those that begin with `macro`, or all of them. */
export function readItems(section: readonly string[], macro?: string): string[] {
  const start = macro === undefined ? '.It ' : `.It ${macro} `;
  return section.filter((line) => line.startsWith(start)).map((line) => plainText(line.slice('.It '.length)));
}

/** Every word on lines that begin with `macro`: `.Ic UseGMT , ServerId` gives two. */
export function readWords(lines: readonly string[], macro: string): string[] {
  const marked = lines.filter((line) => line.startsWith(`.${macro} `));
  return marked.flatMap((line) => {
    const words = line.split(' ').slice(1);
    const next = words.findIndex((word) => INLINE.has(word));
    return words.slice(0, next < 0 ? undefined : next).filter((word) => /\w/.test(word));
  });
}

/**
 * The text of a line of macros: `Ic UseGMT Pq Cm Y No or Cm N ; default Cm N` is `UseGMT Y or N ;
 * default N`.
 */
function plainText(line: string): string {
  const words = line.split(' ').filter((word) => !INLINE.has(word));
  return plain(words.join(' '));
}

/** Every display. Throws Error for one without a comment that says what it is. */
export function readDisplays(lines: readonly string[]): Display[] {
  return lines.flatMap((line, index) => {
    if (!line.startsWith('.Bd ')) return [];
    const kind = /^\.\\" (.+)$/.exec(lines[index - 1] ?? '')?.[1];
    if (kind === undefined) throw new Error(`no comment says what the display in line ${index + 1} holds`);
    return { kind, text: `${plain(lines.slice(index + 1, lines.indexOf('.Ed', index)).join('\n'))}\n` };
  });
}

function plain(text: string): string {
  return text.replace(/\\([-e&])/g, (_, code: string) => ({ '-': '-', e: '\\', '&': '' })[code] ?? '');
}

/** The strictest formatter available, with the options that make it report problems. */
export function findLinter(): string[] | undefined {
  const linters = [
    ['mandoc', '-T', 'lint', '-W', 'warning'],
    ['groff', '-mandoc', '-Tutf8', '-ww'],
    ['man', '-l', '--warnings'],
  ];
  return linters.find(([command = '']) => spawnSync(command, ['--version']).error === undefined);
}
