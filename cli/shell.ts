// Quoting for commands that people paste into a shell.

/** Quotes any text as one word for sh. */
export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Quotes a file name as one word for the system's own shell: sh, or cmd.exe on Windows. */
export function quoteFile(path: string, platform = process.platform): string {
  if (platform !== 'win32') return quote(path);
  return /^[\w@+:./\\-]+$/.test(path) ? path : `"${path}"`;
}
