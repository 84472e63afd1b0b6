// The witnesses that must have cosigned a checkpoint: a policy (c2sp.org/tlog-policy), or a plain
// list of verifier keys, one a line, where any one cosignature is enough.
import { readFileSync } from 'node:fs';
import { Failure } from '../cli/failure.ts';
import { type Note, NoteError, parseNote, verifyNote } from '../notes/note.ts';
import { type Cosigner, cosignedAt, parseWitnessKey } from './tlog.ts';

/** A group of a policy: `threshold` of its members are needed. */
interface Group {
  threshold: number;
  members: readonly Rule[];
}

type Rule = Cosigner | Group;

/** The witnesses that a policy names, and the quorum it requires. */
export interface Cosigners {
  /** Every witness once. */
  witnesses: readonly Cosigner[];
  /** The policy as the text of a file. */
  text: string;
  /** Whether these witnesses meet the quorum. */
  isMet(signed: readonly unknown[]): boolean;
}

/**
 * A name in a policy. A shell script reads the policy too, so no character of a shell pattern is
 * allowed.
 */
const NAME = /^[^\s*?[\]\\]+$/;

/**
 * Parses a policy. Lines for logs are ignored, because the log is identified by its own key. Throws
 * a NoteError that names the line.
 */
export function parseCosigners(text: string): Cosigners {
  const reader = new PolicyReader();
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.split(/[ \t]+/).filter((word) => word !== '');
    if (words.length === 0 || words[0]?.startsWith('#')) continue;
    try {
      reader.take(words);
    } catch (error) {
      if (!(error instanceof NoteError)) throw error;
      throw new NoteError(`line ${index + 1}: ${error.message}`);
    }
  }
  return reader.end();
}

class PolicyReader {
  readonly #named = new Map<string, Rule>();
  readonly #members = new Set<string>();
  readonly #witnesses: Cosigner[] = [];
  readonly #lines: string[] = [];
  #bare = 0;
  #quorum: Rule | undefined;

  take(words: readonly string[]): void {
    const [kind = '', name = '', first = '', ...more] = words;
    if (words.length === 1) this.#takeBare(kind);
    else if (kind === 'log' && words.length <= 3) return;
    else if (kind === 'witness' && more.length <= 1) this.#takeWitness(name, first);
    else if (kind === 'group') this.#takeGroup(name, first, more);
    else if (kind === 'quorum' && words.length === 2) this.#takeQuorum(name);
    else throw new NoteError('not a line of a witness policy');
  }

  /** Finishes a policy. Throws NoteError when it is incomplete. */
  end(): Cosigners {
    if (this.#bare > 0) {
      if (this.#bare < this.#lines.length) throw new NoteError('a policy cannot be mixed with plain verifier keys');
      this.take(['group', 'witnesses', 'any', ...this.#named.keys()]);
      this.take(['quorum', 'witnesses']);
    }
    const quorum = this.#quorum;
    if (!quorum) throw new NoteError('no quorum line');
    const isMet = (signed: readonly unknown[]): boolean => isRuleMet(quorum, signed);
    return { witnesses: this.#witnesses, text: this.#lines.map((line) => `${line}\n`).join(''), isMet };
  }

  #takeBare(key: string): void {
    this.#bare += 1;
    this.#takeWitness(`witness-${this.#bare}`, key);
  }

  #takeWitness(name: string, key: string): void {
    const witness = parseWitnessKey(key);
    const twin = this.#witnesses.find(({ publicKey }) => publicKey.equals(witness.publicKey));
    if (twin) throw new NoteError(`the same key as ${twin.name}+${twin.id}`);
    this.#name(name, witness);
    this.#witnesses.push(witness);
    this.#lines.push(`witness ${name} ${key}`);
  }

  #takeGroup(name: string, count: string, names: readonly string[]): void {
    const members = names.map((member) => this.#find(member));
    for (const member of names) {
      if (this.#members.has(member)) throw new NoteError(`${member} is a member twice`);
      this.#members.add(member);
    }
    const threshold = count === 'all' ? names.length : count === 'any' ? 1 : Number(count);
    const isCount = /^(?:all|any|[1-9]\d{0,2})$/.test(count);
    if (!isCount || threshold < 1 || threshold > names.length)
      throw new NoteError(`${count} of ${names.length} is not a quorum`);
    this.#name(name, { threshold, members });
    this.#lines.push(`group ${name} ${threshold} ${names.join(' ')}`);
  }

  #takeQuorum(name: string): void {
    if (this.#quorum) throw new NoteError('a second quorum line');
    this.#quorum = name === 'none' ? { threshold: 0, members: [] } : this.#find(name);
    this.#lines.push(`quorum ${name}`);
  }

  #find(name: string): Rule {
    const rule = this.#named.get(name);
    if (!rule) throw new NoteError(`${name} is not defined above`);
    return rule;
  }

  #name(name: string, rule: Rule): void {
    if (!NAME.test(name) || name === 'none' || this.#named.has(name))
      throw new NoteError(`${name} is reserved or already defined`);
    this.#named.set(name, rule);
  }
}

function isRuleMet(rule: Rule, signed: readonly unknown[]): boolean {
  if (!('members' in rule)) return signed.includes(rule);
  return rule.members.filter((member) => isRuleMet(member, signed)).length >= rule.threshold;
}

/** Reads a policy from a file. Throws Failure `failed`. */
export function readCosigners(path: string): Cosigners {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  try {
    return parseCosigners(text);
  } catch (error) {
    if (error instanceof NoteError) throw new Failure('failed', `${path}: ${error.message}`);
    throw error;
  }
}

/**
 * The witnesses of a policy that have cosigned a note, and the time of the newest cosignature.
 *
 * @throws NoteError when the quorum is not met, or a cosignature is wrong
 */
export function checkCosigners(note: Note, { witnesses, isMet }: Cosigners): { signed: Cosigner[]; at: Date } {
  const own = note.signatures.filter((one) => witnesses.some(({ name, id }) => one.name === name && one.id === id));
  const signed = own.length === 0 ? [] : verifyNote({ ...note, signatures: own }, witnesses);
  if (!isMet(signed)) throw new NoteError('too few witnesses have cosigned it');
  const times = own.map(({ bytes }) => cosignedAt(bytes).getTime());
  return { signed, at: new Date(Math.max(0, ...times)) };
}

/**
 * The time of the newest cosignature on the text of a note; undefined when the quorum is not met or
 * a cosignature is wrong.
 */
export function whenCosigned(text: string, cosigners: Cosigners): Date | undefined {
  try {
    return checkCosigners(parseNote(Buffer.from(text)), cosigners).at;
  } catch (error) {
    if (error instanceof NoteError) return undefined;
    throw error;
  }
}
