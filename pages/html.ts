// HTML from values nobody trusts: the one place that escapes, and a template that escapes whatever is put into it.
import { safeText } from '../cli/output.ts';

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Text as it may stand in an element or in a quoted attribute; characters that act on a reader become visible. */
function escapeHtml(text: string): string {
  return safeText(text).replace(/[&<>"']/g, (c) => ENTITIES[c] ?? '');
}

let make: (text: string) => Markup;

/** HTML that is done: html`` makes it from literals of ours and from escaped values, and nothing else does but trustedMarkup. */
export class Markup {
  readonly text: string;
  private constructor(text: string) {
    this.text = text;
  }
  static {
    make = (text) => new Markup(text);
  }
}

type Value = Markup | string | number | undefined | readonly Value[];

/** `html\`<td>${clientId}</td>\``: strings are escaped, arrays joined, undefined is nothing. Every attribute must be quoted. */
export function html(literals: TemplateStringsArray, ...values: Value[]): Markup {
  return make(literals.map((literal, index) => literal + formatValue(values[index])).join(''));
}

function formatValue(value: Value): string {
  if (value instanceof Markup) return value.text;
  if (typeof value === 'string') return escapeHtml(value);
  if (typeof value === 'number') return String(value);
  return value === undefined ? '' : value.map(formatValue).join('');
}

/** Constants of this program that are no HTML text: its style and its script. Never for anything that was read. */
export function trustedMarkup(constant: string): Markup {
  return make(constant);
}
