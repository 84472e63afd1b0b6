// Text whose bytes matter: passwords, which go to the server byte for byte, and file names, which
// Node accepts only as UTF-8. Settings are read with one character per byte (latin1), so that no
// byte is lost before the type of the setting is known.

/** Decodes a value as UTF-8; undefined when the value is not valid UTF-8. */
export function decodeUtf8(bytes: string): string | undefined {
  if (!/[\x80-\xff]/.test(bytes)) return bytes;
  const buffer = Buffer.from(bytes, 'latin1');
  const text = buffer.toString('utf8');
  return Buffer.from(text, 'utf8').equals(buffer) ? text : undefined;
}

/** Encodes every byte above 0x7f as `%hh`, so that a URL keeps its bytes. */
export function percentEncode(bytes: string): string {
  return bytes.replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** Decodes a part of a URL, one character for each byte; undefined for an invalid `%`. */
export function percentDecode(text: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return undefined;
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
