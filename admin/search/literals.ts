// Texts that stand in whatever a regular expression of JavaScript matches, so that the index can tell where to look. Only ever a hint: what is
// not understood for sure is passed over, and an expression of which nothing is known has none.

interface State {
  source: string;
  at: number;
  ignoreCase: boolean;
}

/** Texts that every match holds. The source is that of a valid expression with no flag but `i`. */
export function findLiterals(source: string, ignoreCase: boolean): string[] {
  return readAlternatives({ source, at: 0, ignoreCase });
}

/** Up to the end of a group, or of all. What stands in one of several alternatives only need not be there. */
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

/** One character that stands for itself, or the texts of whatever else it is. */
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
  // What looks ahead or behind may look at what no match holds, or forbid it; flags of a group change what is plain.
  return head === '(' || head === '(?:' || /^\(\?<[^=!]/.test(head) ? found : [];
}

function readEscape(state: State): string | string[] {
  const [text = ''] = match(state, /\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|c[A-Za-z]|k<[^>]*>|[0-9]+|[\s\S])/y) ?? [];
  state.at += text.length;
  const char = text.slice(1);
  return /^[^A-Za-z0-9_]$/.test(char) && isPlain(char, state) ? char : [];
}

/** In capitals or not, SQLite and JavaScript agree on ASCII; half a pair is no character. */
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
