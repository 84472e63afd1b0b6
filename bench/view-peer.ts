// The minimal FastCGI worker, which does nothing, for bench/view.ts.
import { createResponder, listenAt, parseListeningPlace } from 'node-cgi-compat/responder';

const responder = createResponder({
  handler: () => ({ status: 200, reason: 'OK', headers: [], contentLength: 0 }),
  findSpoolFolder: () => undefined,
  onError: (error) => console.error(error),
});
await listenAt(responder.server, parseListeningPlace(process.argv[3] ?? ''));
