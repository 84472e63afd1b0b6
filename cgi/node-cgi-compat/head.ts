// The header a host reads from an ordinary script's output (RFC 3875, section 6.3), the counterpart of formatHead. Pure.

/** What an ordinary script said before its first blank line. */
export interface ParsedHead {
  status: number;
  /** Undefined when the script gave none: the host then knows the usual phrase. */
  reason: string | undefined;
  headers: [name: string, value: string][];
}

/** Between host and client, not the script's to say: the host frames the content itself. */
const HOP_BY_HOP = new Set('connection keep-alive proxy-connection te trailer transfer-encoding upgrade'.split(' '));

/** Takes the lines before the blank one apart; undefined for a header that is empty or malformed. */
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
