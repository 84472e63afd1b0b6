// The groups of a site: names for many clients, written by hand in `groups` (docs/protocol.md,
// section 12). The server looks up the groups of a client, and webjobctl the members of a group. A
// script that serves one request has no time to look at a hundred thousand members one by one, so
// it searches the text.
import { isClientId, matchesGlob } from 'webjob-protocol';

/** A group: client ids, globs, and names of other groups. */
interface Group {
  /** The members, separated by spaces or commas. */
  text: string;
  /** The members that are names of groups. */
  nested: string[];
  /** All members; built when the group is searched for the second time. */
  index: ReadonlySet<string> | undefined;
  /** The members with wildcards; found when the group is searched for the first time. */
  globs: readonly string[] | undefined;
  isAsked: boolean;
}

/** Groups by name. */
export type Groups = ReadonlyMap<string, Group>;

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const MEMBER = /^[A-Za-z0-9_*?-]{1,64}$/;
/** Characters that no member has. */
const STRANGE = /[^A-Za-z0-9_*?\s,-]/;
const MAX_MEMBER = 64;
const LINE = /^([^\s=]*)\s*=(.*)$/;

/** An error in the groups of a site with its line, counted from 1. */
export class GroupsError extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.line = line;
  }
}

/**
 * Parses lines `name = member member …` with members separated by spaces or commas. `#` begins a
 * comment, and several lines of one group add up. A group may contain others that are defined
 * anywhere in the file. Throws GroupsError for a malformed line, and for a group that contains
 * itself.
 */
export function parseGroups(text: string): Groups {
  const groups = new Map<string, Group>();
  const lines = new Map<string, number>();
  for (const [index, line] of text.split('\n').entries()) {
    const comment = line.indexOf('#');
    const statement = (comment < 0 ? line : line.slice(0, comment)).trim();
    if (statement === '') continue;
    const [, name = '', rest = ''] = LINE.exec(statement) ?? [];
    if (!NAME.test(name)) throw new GroupsError(index + 1, 'it must be: name = member member');
    const members = rest.replace(/^[\s,]+/, '');
    if (STRANGE.test(members) || hasLongMember(members)) {
      const wrong = splitMembers(members).find((member) => !MEMBER.test(member));
      throw new GroupsError(index + 1, `${wrong} is not a client id, a glob or a group`);
    }
    const known = groups.get(name);
    if (known) known.text += ` ${members}`;
    else groups.set(name, { text: members, nested: [], index: undefined, globs: undefined, isAsked: false });
    if (!lines.has(name)) lines.set(name, index + 1);
  }
  findNested(groups);
  for (const [name, line] of lines)
    if (reaches(groups, name, name, new Set())) throw new GroupsError(line, `the group ${name} contains itself`);
  return groups;
}

/**
 * Whether a member is too long. Reads only a few characters of each, because for a large file a
 * regular expression would take longer than the rest of a request.
 */
function hasLongMember(text: string): boolean {
  for (let at = MAX_MEMBER; at < text.length; ) {
    const part = text.slice(at - MAX_MEMBER, at + 1);
    let gap = part.lastIndexOf(' ');
    for (let last = MAX_MEMBER; gap < 0 && last >= 0; last--) if (isGap(part.charCodeAt(last))) gap = last;
    if (gap < 0) return true;
    at += gap + 1;
  }
  return false;
}

/** A blank or a comma, among characters of members. */
const isGap = (code: number): boolean => code <= 0x20 || code === 0x2c || code > 0x7e;

function splitMembers(text: string): string[] {
  return text.split(/[\s,]+/).filter((member) => member !== '');
}

/** Finds the groups that are members of groups: most are not, which one search determines. */
function findNested(groups: Groups): void {
  if (groups.size === 0) return;
  const pattern = new RegExp(`(?<![^\\s,])(?:${[...groups.keys()].join('|')})(?![^\\s,])`, 'g');
  for (const group of groups.values()) group.nested = [...new Set(group.text.match(pattern))];
}

function reaches(groups: Groups, from: string, to: string, seen: Set<string>): boolean {
  if (seen.has(from)) return false;
  seen.add(from);
  return (groups.get(from)?.nested ?? []).some((member) => member === to || reaches(groups, member, to, seen));
}

/**
 * Returns a function that reports whether a word names a client: as the name of a group if there is
 * one, otherwise as a client id or glob. Results are cached, because many assignments may be for
 * one large group.
 */
export function makeMembership(groups: Groups, clientId: string): (word: string) => boolean {
  const known = new Map<string, boolean>();
  const isMeant = (word: string): boolean => {
    const group = groups.get(word);
    if (!group) return word === clientId || matchesGlob(word, clientId);
    let isIn = known.get(word);
    if (isIn === undefined) {
      isIn =
        (!groups.has(clientId) && holds(group, clientId)) || group.nested.some(isMeant) || matches(group, clientId);
      known.set(word, isIn);
    }
    return isIn;
  };
  return isMeant;
}

function holds(group: Group, clientId: string): boolean {
  if (!group.isAsked) {
    group.isAsked = true;
    return hasMember(group.text, clientId);
  }
  group.index ??= new Set(splitMembers(group.text));
  return group.index.has(clientId);
}

function hasMember(text: string, member: string): boolean {
  const isEnd = (at: number): boolean => at < 0 || at >= text.length || isGap(text.charCodeAt(at));
  for (let at = text.indexOf(member); at >= 0; at = text.indexOf(member, at + 1))
    if (isEnd(at - 1) && isEnd(at + member.length)) return true;
  return false;
}

/** Whether a glob in the group matches. */
function matches(group: Group, clientId: string): boolean {
  group.globs ??= /[*?]/.test(group.text) ? (group.text.match(/[^\s,]*[*?][^\s,]*/g) ?? []) : [];
  return group.globs.some((glob) => matchesGlob(glob, clientId));
}

/** Whether a word can be a client id, a glob or the name of a group. */
export function isTarget(word: string): boolean {
  return MEMBER.test(word);
}

/**
 * The client ids that the words name without a wildcard, each once. The site may not know some of
 * them.
 */
export function namedClients(groups: Groups, words: readonly string[]): Set<string> {
  return new Set([...membersOf(groups, words)].filter(isClientId));
}

/**
 * The client ids and globs that the words stand for, each once, with the members of groups in the
 * place of their names.
 */
export function membersOf(groups: Groups, words: readonly string[]): Set<string> {
  const found = new Set<string>();
  const add = (word: string): void => {
    const group = groups.get(word);
    if (group) for (const member of splitMembers(group.text)) add(member);
    else found.add(word);
  };
  for (const word of words) add(word);
  return found;
}
