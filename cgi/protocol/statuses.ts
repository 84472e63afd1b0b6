// THE table of statuses that the server answers with. The reason phrases are part of the interface:
// clients print `Status = [n], Reason = [text]` (docs/protocol.md, section 3). No other file may
// define a code or a reason.

export const REASONS = {
  200: 'OK',
  251: 'Link Test OK',
  404: 'Not Found',
  405: 'Method Not Allowed',
  450: 'Invalid Query',
  451: 'File Already Exists',
  452: 'Username Undefined',
  453: 'Username-ClientId Mismatch',
  454: 'Content-Length Undefined',
  455: 'Content-Length Exceeds Limit',
  456: 'Content-Length Mismatch',
  457: 'File Not Available',
  458: 'Secure Transport Required',
  459: 'Signature Not Available',
  470: 'CommonName Undefined',
  471: 'CommonName-ClientId Mismatch',
  472: 'Address Not Allowed',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
  507: 'Insufficient Storage',
  550: 'Internal Server Initialization Error',
  551: 'Hook Failed',
  553: 'Service Disabled',
} as const;

export type Status = keyof typeof REASONS;

/** Whether a status tells a client that its request was served: 200 to 299. */
export function isSuccess(status: number): boolean {
  return status >= 200 && status <= 299;
}
