// Finds texts that every match of a JavaScript regular expression contains, so that the index can
// narrow the search. This is only a hint: whatever is not fully understood is skipped, and may
// leave no text at all.

interface State {
  source: string;
  at: number;
  ignoreCase: boolean;
}

/**
 * Texts that every match contains. The source must be a valid expression with no flag other than
 * `i`.
 */
export function findLiterals(source: string, ignoreCase: boolean): string[] {
  return readAlternatives({ source, at: 0, ignoreCase });
}

/**
 * Reads to the end of a group, or of the expression. A text in only one of several alternatives may
 * be absent from a match.
 */
function readAlternatives(state: State): string[] {
  let found = readSequence(state);
  while (state.source[state.at] === '|') {
    state.at++;
    readSequence(state);
    found = [];
  }
  return found;
}

function readSequence(state: State): string[] {
  const found: string[] = [];
  let run = '';
  const endRun = (): void => {
    if (run !== '') found.push(run);
    run = '';
  };
  for (let char = state.source[state.at]; char !== undefined && char !== '|' && char !== ')'; ) {
    const atom = readAtom(state);
    const quantifier = readQuantifier(state);
    if (typeof atom === 'string') {
      if (quantifier?.isOptional) endRun();
      else run += atom;
      if (quantifier) endRun();
    } else {
      endRun();
      if (!quantifier?.isOptional) found.push(...atom);
    }
    char = state.source[state.at];
  }
  endRun();
  return found;
}

/** Reads one literal character; for anything else, returns the texts that it must contain. */
function readAtom(state: State): string | string[] {
  const char = state.source[state.at] ?? '';
  if (char === '(') return readGroup(state);
  if (char === '[') return skip(state, /\[(?:\\[\s\S]|[^\]\\])*\]/y);
  if (char === '\\') return readEscape(state);
  state.at++;
  return '.^$'.includes(char) || !isPlain(char, state) ? [] : char;
}

function readGroup(state: State): string[] {
  const [head = '('] = match(state, /\((?:\?(?:[:=!]|<[=!]|<[^>]*>|[a-z-]*:))?/y) ?? [];
  state.at += head.length;
  const found = readAlternatives(state);
  state.at++;
  // A lookahead or lookbehind may refer to text outside of the match, or forbid it; flags of a
  // group change which characters are literal.
  return head === '(' || head === '(?:' || /^\(\?<[^=!]/.test(head) ? found : [];
}

function readEscape(state: State): string | string[] {
  const [text = ''] = match(state, /\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|c[A-Za-z]|k<[^>]*>|[0-9]+|[\s\S])/y) ?? [];
  state.at += text.length;
  const char = text.slice(1);
  return /^[^A-Za-z0-9_]$/.test(char) && isPlain(char, state) ? char : [];
}

/**
 * For ASCII, SQLite and JavaScript agree on upper and lower case; half of a surrogate pair is not a
 * character.
 */
function isPlain(char: string, { ignoreCase }: State): boolean {
  return !/[\ud800-\udfff]/.test(char) && (!ignoreCase || char <= '\x7f');
}

function readQuantifier(state: State): { isOptional: boolean } | undefined {
  const [quantifier] = match(state, /(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??/y) ?? [];
  if (quantifier === undefined) return undefined;
  state.at += quantifier.length;
  return { isOptional: /^(?:[*?]|\{0+[,}])/.test(quantifier) };
}

function skip(state: State, pattern: RegExp): string[] {
  state.at += match(state, pattern)?.[0].length ?? 1;
  return [];
}

function match(state: State, pattern: RegExp): RegExpExecArray | null {
  pattern.lastIndex = state.at;
  return pattern.exec(state.source);
}
