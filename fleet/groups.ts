// The groups of a site: names for many clients, kept by hand in `groups` (docs/protocol.md, section 12). The server asks which groups a client
// is in, webjobctl who is in a group.
import { isClientId, matchesGlob } from 'webjob-protocol';

/** What stands in a group: client ids, globs of them, and names of other groups. */
interface Group {
  members: string[];
  /** Those of them that may stand for more than one client. */
  patterns: string[];
  /** The members once more, from the second question on: a process that asks once has no use for it. */
  index: ReadonlySet<string> | undefined;
  isAsked: boolean;
}

/** Groups by name. */
export type Groups = ReadonlyMap<string, Group>;

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const MEMBER = /^[A-Za-z0-9_*?-]{1,64}$/;

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
    const statement = line.replace(/#.*/, '').trim();
    if (statement === '') continue;
    const [, name = '', rest = ''] = /^([^\s=]*)\s*=(.*)$/.exec(statement) ?? [];
    if (!NAME.test(name)) throw new GroupsError(index + 1, 'it is not: name = member member');
    const members = rest.split(/[\s,]+/).filter((member) => member !== '');
    const wrong = members.find((member) => !MEMBER.test(member));
    if (wrong !== undefined) throw new GroupsError(index + 1, `${wrong} is not a client id, a glob or a group`);
    const known = groups.get(name);
    groups.set(name, {
      members: known ? known.members.concat(members) : members,
      patterns: [],
      index: undefined,
      isAsked: false,
    });
    if (!lines.has(name)) lines.set(name, index + 1);
  }
  for (const group of groups.values())
    group.patterns = group.members.filter((member) => groups.has(member) || /[*?]/.test(member));
  for (const [name, line] of lines)
    if (reaches(groups, name, name, new Set())) throw new GroupsError(line, `the group ${name} holds itself`);
  return groups;
}

function reaches(groups: Groups, from: string, to: string, seen: Set<string>): boolean {
  if (seen.has(from)) return false;
  seen.add(from);
  return (groups.get(from)?.patterns ?? []).some(
    (member) => groups.has(member) && (member === to || reaches(groups, member, to, seen)),
  );
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
      isIn = (!groups.has(clientId) && holds(group, clientId)) || group.patterns.some(isMeant);
      known.set(word, isIn);
    }
    return isIn;
  };
  return isMeant;
}

function holds(group: Group, clientId: string): boolean {
  if (!group.isAsked) {
    group.isAsked = true;
    return group.members.includes(clientId);
  }
  group.index ??= new Set(group.members);
  return group.index.has(clientId);
}

/** True for a word that can stand in a list of targets. */
export function isTarget(word: string): boolean {
  return MEMBER.test(word);
}

/** The client ids that the words name without a wildcard, each once: clients that a site may not have heard of yet. */
export function namedClients(groups: Groups, words: readonly string[]): Set<string> {
  const found = new Set<string>();
  const add = (word: string): void => {
    const group = groups.get(word);
    if (group) for (const member of group.members) add(member);
    else if (isClientId(word)) found.add(word);
  };
  for (const word of words) add(word);
  return found;
}
