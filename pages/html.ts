// HTML from untrusted values: all escaping is done here, by a template that escapes whatever is
// inserted.
import { safeText } from '../cli/output.ts';

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Escapes text for an element or a quoted attribute; invisible characters become visible. */
function escapeHtml(text: string): string {
  return safeText(text).replace(/[&<>"']/g, (c) => ENTITIES[c] ?? '');
}

let make: (text: string) => Markup;

/**
 * Finished HTML: made only by html`` from literals of this program and escaped values, and by
 * trustedMarkup().
 */
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

/**
 * `html\`<td>${clientId}</td>\``: strings are escaped, arrays are joined, undefined is empty. Every
 * attribute must be quoted.
 */
export function html(literals: TemplateStringsArray, ...values: Value[]): Markup {
  return make(literals.map((literal, index) => literal + formatValue(values[index])).join(''));
}

function formatValue(value: Value): string {
  if (value instanceof Markup) return value.text;
  if (typeof value === 'string') return escapeHtml(value);
  if (typeof value === 'number') return String(value);
  return value === undefined ? '' : value.map(formatValue).join('');
}

/**
 * Wraps constants of this program that are not HTML text: its style and its script. Never use it
 * for data that was read.
 */
export function trustedMarkup(constant: string): Markup {
  return make(constant);
}
