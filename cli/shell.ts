// Words of commands that somebody pastes into a shell.

/** A word of sh that stands for the text, whatever is in it. */
export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A word of the system's own shell that stands for the name of a file: of sh, or of cmd.exe on Windows. */
export function quoteFile(path: string, platform = process.platform): string {
  if (platform !== 'win32') return quote(path);
  return /^[\w@+:./\\-]+$/.test(path) ? path : `"${path}"`;
}
