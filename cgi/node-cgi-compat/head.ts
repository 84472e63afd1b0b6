// Parses the header that a host reads from the output of an ordinary script (RFC 3875, section
// 6.3), the counterpart of formatHead(). A pure function.

/** The header of an ordinary script. */
export interface ParsedHead {
  status: number;
  /** Undefined when the script gave none: the host then uses the standard phrase. */
  reason: string | undefined;
  headers: [name: string, value: string][];
}

/** Hop-by-hop headers are not the script's to set, because the host frames the content itself. */
const HOP_BY_HOP = new Set('connection keep-alive proxy-connection te trailer transfer-encoding upgrade'.split(' '));

/** Parses the lines before the blank one; undefined for an empty or malformed header. */
export function parseHead(text: string): ParsedHead | undefined {
  const head: ParsedHead = { status: 200, reason: undefined, headers: [] };
  let statusGiven = false;
  for (const line of text.split(/\r?\n/)) {
    const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7e]*)$/.exec(line);
    if (!match) return undefined;
    const [, name = '', value = ''] = match;
    if (name.toLowerCase() === 'status') {
      const status = /^([1-9]\d\d)(?: (.*))?$/.exec(value);
      if (!status) return undefined;
      statusGiven = true;
      head.status = Number(status[1]);
      head.reason = status[2];
    } else if (!HOP_BY_HOP.has(name.toLowerCase())) head.headers.push([name, value]);
  }
  if (!statusGiven && head.headers.some(([name]) => name.toLowerCase() === 'location')) head.status = 302;
  return head;
}
