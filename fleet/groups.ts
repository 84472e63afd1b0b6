// The groups of a site: names for many clients, kept by hand in `groups` (docs/protocol.md, section 12). The server asks which groups a client
// is in, webjobctl who is in a group. A script that serves one request has no time to look at each of a hundred thousand members: it searches
// their text.
import { isClientId, matchesGlob } from 'webjob-protocol';

/** What stands in a group: client ids, globs of them, and names of other groups. */
interface Group {
  /** The members, with blanks or commas between them. */
  text: string;
  /** Those of them that are names of groups. */
  nested: string[];
  /** All of them, from the second question on. */
  index: ReadonlySet<string> | undefined;
  isAsked: boolean;
}

/** Groups by name. */
export type Groups = ReadonlyMap<string, Group>;

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const MEMBER = /^[A-Za-z0-9_*?-]{1,64}$/;
/** What is in no list of members. */
const STRANGE = /[^A-Za-z0-9_*?\s,-]|[^\s,]{65}/;
const LINE = /^([^\s=]*)\s*=(.*)$/;

/** What is wrong with the groups of a site, and in which line, counted from 1. */
export class GroupsError extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.line = line;
  }
}

/**
 * Reads lines `name = member member …`, with commas as well as blanks between members; `#` begins a comment, and several lines of one group
 * add up. A group may hold others, wherever they stand. Throws GroupsError for a malformed line, and for a group that holds itself.
 */
export function parseGroups(text: string): Groups {
  const groups = new Map<string, Group>();
  const lines = new Map<string, number>();
  for (const [index, line] of text.split('\n').entries()) {
    const comment = line.indexOf('#');
    const statement = (comment < 0 ? line : line.slice(0, comment)).trim();
    if (statement === '') continue;
    const [, name = '', rest = ''] = LINE.exec(statement) ?? [];
    if (!NAME.test(name)) throw new GroupsError(index + 1, 'it is not: name = member member');
    const members = rest.replace(/^[\s,]+/, '');
    if (STRANGE.test(members)) {
      const wrong = splitMembers(members).find((member) => !MEMBER.test(member));
      throw new GroupsError(index + 1, `${wrong} is not a client id, a glob or a group`);
    }
    const known = groups.get(name);
    if (known) known.text += ` ${members}`;
    else groups.set(name, { text: members, nested: [], index: undefined, isAsked: false });
    if (!lines.has(name)) lines.set(name, index + 1);
  }
  findNested(groups);
  for (const [name, line] of lines)
    if (reaches(groups, name, name, new Set())) throw new GroupsError(line, `the group ${name} holds itself`);
  return groups;
}

function splitMembers(text: string): string[] {
  return text.split(/[\s,]+/).filter((member) => member !== '');
}

/** Which groups stand in which: most stand in none, and one search says so. */
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
 * Tells which words mean a client: the group of that name when there is one, else all client ids that match. Each is looked up once, for
 * many assignments may be for one large group.
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
    return new RegExp(`(?<![^\\s,])${clientId}(?![^\\s,])`).test(group.text);
  }
  group.index ??= new Set(splitMembers(group.text));
  return group.index.has(clientId);
}

/** By a glob. */
function matches({ text }: Group, clientId: string): boolean {
  return /[*?]/.test(text) && (text.match(/[^\s,]*[*?][^\s,]*/g) ?? []).some((glob) => matchesGlob(glob, clientId));
}

/** True for a word that can stand in a list of targets. */
export function isTarget(word: string): boolean {
  return MEMBER.test(word);
}

/** The client ids that the words name without a wildcard, each once: clients that a site may not have heard of yet. */
export function namedClients(groups: Groups, words: readonly string[]): Set<string> {
  return new Set([...membersOf(groups, words)].filter(isClientId));
}

/** The client ids and globs that the words stand for, each once, with the members of groups in the place of their names. */
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
