// Words of commands that somebody pastes into a shell.

/** A word of sh that stands for the text, whatever is in it. */
export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
