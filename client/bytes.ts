// Text whose bytes matter: passwords, which go to the server as they stand, and file names, which Node takes in UTF-8 alone. Files with
// settings are read a byte a character (latin1), so that nothing is lost before it is known what a value is.

/** The text of such a value; undefined when its bytes are not UTF-8. */
export function decodeUtf8(bytes: string): string | undefined {
  if (!/[\x80-\xff]/.test(bytes)) return bytes;
  const buffer = Buffer.from(bytes, 'latin1');
  const text = buffer.toString('utf8');
  return Buffer.from(text, 'utf8').equals(buffer) ? text : undefined;
}

/** Every byte above 7 bits as `%hh`, so that a URL means the bytes that it was given. */
export function percentEncode(bytes: string): string {
  return bytes.replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** The bytes of a part of a URL, a byte a character; undefined for a bad `%`. */
export function percentDecode(text: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return undefined;
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
