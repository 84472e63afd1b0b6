// The raw vectors of test/vectors/*.txt: reads them, and compares results with them.
// test/vectors/README.md describes their format. Starts nothing and touches no locker.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * A step that adds something to the tree, or removes it, before the request. Paths are relative to
 * BaseDirectory.
 */
export interface SetupStep {
  kind: 'file' | 'folder' | 'link' | 'fifo' | 'remove';
  path: string;
  mode: number | undefined;
  /** The bytes of a file (latin1), the target of a link. */
  content: string;
}

/**
 * For requests that httpd answers by itself: its status, and whether the script runs all the same.
 */
export interface HttpdAnswer {
  status: number;
  script: 'before' | 'after';
}

export interface Vector {
  name: string;
  /** `get.txt:12` */
  place: string;
  settings: string[];
  setup: SetupStep[];
  request: Buffer;
  /** Templates of the expected results. */
  response: string;
  log: string[];
  locker: { path: string; content: string }[];
  httpdAnswers: HttpdAnswer | undefined;
  /** Changes to the variables of the bare process; undefined removes one. */
  bareEnvironment: [name: string, value: string | undefined][];
  /** The only kind of target that can run this vector, and why no other can. */
  only: { kind: 'bare' | 'httpd'; reason: string } | undefined;
}

/** The results of a vector. All text is latin1: one character for each byte. */
export interface Outcome {
  response: string;
  log: string[];
  /** Files below `incoming/`, by path. */
  locker: Map<string, string>;
}

const FOLDER = join(import.meta.dirname, '..', 'vectors');

/** Every vector of every `.txt` file, in order. Throws a SyntaxError that names file and line. */
export function readVectors(folder = FOLDER): Vector[] {
  const files = readdirSync(folder).filter((name) => name.endsWith('.txt'));
  return files.sort().flatMap((name) => parseVectors(readFileSync(join(folder, name), 'latin1'), name));
}

/** Parses one file. Throws SyntaxError. */
function parseVectors(text: string, fileName: string): Vector[] {
  const vectors: Vector[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const place = `${fileName}:${index + 1}`;
    if (line === '' || line.startsWith('#')) continue;
    if (line.startsWith('vector: ')) vectors.push(emptyVector(line.slice(8), place));
    else {
      const vector = vectors.at(-1);
      if (!vector) throw new SyntaxError(`${place}: a line before the first vector`);
      parseLine(vector, line, place);
    }
  }
  for (const vector of vectors) checkWhole(vector);
  return vectors;
}

function emptyVector(name: string, place: string): Vector {
  return {
    name,
    place,
    settings: [],
    setup: [],
    request: Buffer.alloc(0),
    response: '',
    log: [],
    locker: [],
    httpdAnswers: undefined,
    bareEnvironment: [],
    only: undefined,
  };
}

function checkWhole(vector: Vector): void {
  if (vector.request.length === 0) throw new SyntaxError(`${vector.place}: no request`);
  if (vector.response === '' && vector.only?.kind !== 'httpd') throw new SyntaxError(`${vector.place}: no response`);
}

function parseLine(vector: Vector, line: string, place: string): void {
  const wire = /^([<>])(\|?)(?: |$)(.*)$/.exec(line);
  if (wire) {
    addBytes(vector, wire[1] === '>', `${wire[3]}${wire[2] ? '' : '\\r\\n'}`);
    return;
  }
  const pair = /^([a-z ]+): (.*)$/.exec(line);
  const value = pair?.[2] ?? '';
  switch (pair?.[1]) {
    case 'cfg':
      vector.settings.push(decode(value));
      return;
    case 'log':
      vector.log.push(value);
      return;
    case 'locker':
      vector.locker.push(parseLocker(value, place));
      return;
    case 'bare env':
      vector.bareEnvironment.push(parseVariable(value));
      return;
    case 'only bare':
    case 'only httpd':
      vector.only = { kind: pair[1] === 'only bare' ? 'bare' : 'httpd', reason: value };
      return;
    case 'httpd answers':
      vector.httpdAnswers = parseHttpdAnswer(value, place);
      return;
    default:
      vector.setup.push(parseStep(pair?.[1] ?? '', value, place));
  }
}

function addBytes(vector: Vector, isRequest: boolean, text: string): void {
  if (isRequest) vector.request = Buffer.concat([vector.request, Buffer.from(decode(text), 'latin1')]);
  else vector.response += text;
}

function parseLocker(value: string, place: string): { path: string; content: string } {
  const match = /^(\S+) "(.*)"$/.exec(value);
  if (!match) throw new SyntaxError(`${place}: locker: <path> "<bytes>"`);
  return { path: match[1] ?? '', content: match[2] ?? '' };
}

function parseVariable(value: string): [string, string | undefined] {
  const [name = '', ...rest] = value.split('=');
  return [name, rest.length > 0 ? decode(rest.join('=')) : undefined];
}

function parseHttpdAnswer(value: string, place: string): HttpdAnswer {
  const match = /^(\d{3}) (before|after) the script$/.exec(value);
  if (!match) throw new SyntaxError(`${place}: httpd answers: <status> before|after the script`);
  return { status: Number(match[1]), script: match[2] === 'before' ? 'before' : 'after' };
}

const STEP_PATTERNS: Record<SetupStep['kind'], RegExp> = {
  file: /^(\S+)(?: mode=([0-7]{3}))? "(.*)"$/,
  folder: /^(\S+)(?: mode=([0-7]{3}))?()$/,
  link: /^(\S+)() -> (\S+)$/,
  fifo: /^(\S+)()()$/,
  remove: /^(\S+)()()$/,
};

function parseStep(key: string, value: string, place: string): SetupStep {
  const kind = key as SetupStep['kind'];
  const match = Object.hasOwn(STEP_PATTERNS, kind) ? STEP_PATTERNS[kind].exec(value) : null;
  if (!match) throw new SyntaxError(`${place}: not a line of a vector`);
  const mode = match[2] ? Number.parseInt(match[2], 8) : undefined;
  return { kind, path: decode(match[1] ?? ''), mode, content: decode(match[3] ?? '') };
}

const ESCAPES: Record<string, string> = { r: '\r', n: '\n', t: '\t', 0: '\0', '\\': '\\' };

/**
 * The values of placeholders. A placeholder always stands for the bytes it stood for first, except
 * `{any}`.
 */
const PLACEHOLDERS: Record<string, string> = {
  server: '[ -~]+',
  jobid: '[A-Za-z0-9_.-]{1,64}_[0-9]{10}_[0-9]{5,15}',
  time: '[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}',
  stamp: '[0-9]{14}',
  epoch: '[0-9]{10}',
  pid: '[0-9]{5,15}',
  seconds: '[0-9]{1,3}',
  digits: '[0-9]+',
  any: '[ -~]*',
};

const TOKEN = /\\(?:([rnt0\\])|x([0-9a-f]{2}))|\{(.)\*([0-9]+)\}|\{([a-z]+)\}/gs;

/** The bytes of a text in a vector, one character for each. Placeholders stand for themselves. */
function decode(text: string): string {
  return text.replace(TOKEN, (whole, letter, hex, repeated, count) => {
    if (letter) return ESCAPES[letter] ?? '';
    if (hex) return String.fromCharCode(Number.parseInt(hex, 16));
    return repeated ? repeated.repeat(Number(count)) : whole;
  });
}

/** The values of one vector's placeholders so far. */
export type Bindings = Map<string, string>;

/** Whether `actual` matches the template; remembers the values of its placeholders. */
function matchTemplate(template: string, actual: string, bindings: Bindings): boolean {
  const names = new Set<string>();
  let pattern = '';
  let literal = '';
  let end = 0;
  for (const match of template.matchAll(TOKEN)) {
    literal += template.slice(end, match.index);
    end = match.index + match[0].length;
    if (match[5] === undefined || !Object.hasOwn(PLACEHOLDERS, match[5])) {
      literal += decode(match[0]);
    } else {
      pattern += escapePattern(literal) + placeholderPattern(match[5], bindings, names);
      literal = '';
    }
  }
  // What follows the last placeholder may be megabytes: too much for a pattern.
  const tail = literal + template.slice(end);
  if (!actual.endsWith(tail)) return false;
  const found = new RegExp(`^${pattern}$`, 's').exec(actual.slice(0, actual.length - tail.length));
  for (const name of found ? names : []) bindings.set(name, found?.groups?.[name] ?? '');
  return found !== null;
}

function placeholderPattern(name: string, bindings: Bindings, names: Set<string>): string {
  if (name === 'any') return `(?:${PLACEHOLDERS.any})`;
  const bound = bindings.get(name);
  if (bound !== undefined) return escapePattern(bound);
  if (names.has(name)) return `\\k<${name}>`;
  names.add(name);
  return `(?<${name}>${PLACEHOLDERS[name]})`;
}

function escapePattern(text: string): string {
  return text.replace(/[^A-Za-z0-9_]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** All differences between an outcome and its vector, in words; empty when there are none. */
export function findDifferences(vector: Vector, outcome: Outcome, kind: 'bare' | 'httpd'): string[] {
  const bindings: Bindings = new Map();
  const own = kind === 'httpd' ? vector.httpdAnswers : undefined;
  const isRight = own
    ? new RegExp(`^HTTP/1\\.[01] ${own.status} `).test(outcome.response)
    : matchTemplate(vector.response, outcome.response, bindings);
  const ran = own?.script !== 'before';
  return [
    ...(isRight ? [] : [`response: ${quote(outcome.response)}`]),
    ...compareLog(ran ? vector.log : [], outcome.log, bindings),
    ...compareLocker(ran ? vector.locker : findStored(vector), outcome.locker, bindings),
  ];
}

/** The contents of the locker before the request. */
function findStored({ setup }: Vector): Vector['locker'] {
  const stored = setup.filter(({ kind, path }) => kind === 'file' && path.startsWith('incoming/'));
  return stored.map(({ path, content }) => ({ path: path.slice('incoming/'.length), content }));
}

function compareLog(templates: string[], lines: string[], bindings: Bindings): string[] {
  const problems = templates.length === lines.length ? [] : [`log: ${lines.length} lines, not ${templates.length}`];
  for (const [index, line] of lines.entries()) {
    if (!matchTemplate(templates[index] ?? '', line, bindings)) problems.push(`log: ${quote(line)}`);
  }
  return problems;
}

function compareLocker(expected: Vector['locker'], actual: Map<string, string>, bindings: Bindings): string[] {
  const left = new Map(actual);
  const problems: string[] = [];
  for (const { path, content } of expected) {
    const found = [...left].find(([name]) => matchTemplate(path, name, bindings));
    if (!found) problems.push(`locker: no ${path}`);
    else if (!matchTemplate(content, found[1], bindings)) problems.push(`locker: ${found[0]} ${quote(found[1])}`);
    if (found) left.delete(found[0]);
  }
  return [...problems, ...[...left].map(([name, content]) => `locker: unexpected ${name} ${quote(content)}`)];
}

function quote(text: string): string {
  return JSON.stringify(text.length > 1500 ? `${text.slice(0, 1500)}... (${text.length} bytes)` : text);
}
