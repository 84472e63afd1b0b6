// A finding of configtest: a problem, where it is, and its remedy.

export const SEVERITIES = ['error', 'warning', 'note'] as const;

export interface Finding {
  /**
   * error: requests fail, or someone has access who must not. warning: either of these will or
   * could happen. note: for information.
   */
  severity: (typeof SEVERITIES)[number];
  what: string;
  /** A file, `FILE:LINE`, or a URL. */
  where: string;
  /** A command or an instruction; empty for a note that needs none. */
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
