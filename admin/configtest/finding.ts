// What configtest finds: one thing, where it is, and what mends it.

export const SEVERITIES = ['error', 'warning', 'note'] as const;

export interface Finding {
  /** error: requests fail, or somebody may do what he should not. warning: they will, or could. note: good to know. */
  severity: (typeof SEVERITIES)[number];
  what: string;
  /** A file, `FILE:LINE`, or a URL. */
  where: string;
  /** Empty for a note that needs none. */
  remedy: string;
}

export const error = (what: string, where: string, remedy: string): Finding => {
  return { severity: 'error', what, where, remedy };
};
export const warning = (what: string, where: string, remedy: string): Finding => {
  return { severity: 'warning', what, where, remedy };
};
export const note = (what: string, where: string, remedy = ''): Finding => {
  return { severity: 'note', what, where, remedy };
};
