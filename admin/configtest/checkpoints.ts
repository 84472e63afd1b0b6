// How long ago the custody records were signed, where they are signed at all.
import type { ServerSettings } from '../../cgi/controls.ts';
import { listServers, newestCheckpoint } from '../site/logs.ts';
import { newestStamp } from '../site/stamps.ts';
import { type Finding, note, warning } from './finding.ts';
import type { Mends } from './mends.ts';

const DAY_MS = 86_400_000;
/** Days after which somebody has forgotten it. */
const OLD = 31;

/** Says nothing about a record without checkpoints: a site may keep them elsewhere. */
export function checkCheckpoints(settings: ServerSettings, { webjobctl }: Mends): Finding[] {
  const { logfilesDirectory: logs } = settings;
  return listServers(settings).flatMap((serverId) => {
    const [signed, stamped] = [newestCheckpoint(settings, serverId), newestStamp(settings, serverId)];
    const judge = (what: string, at: Date | undefined, remedy: string): Finding[] => {
      if (!at) return [];
      const days = Math.floor((Date.now() - at.getTime()) / DAY_MS);
      const age = days < 1 ? 'less than a day' : days === 1 ? 'a day' : `${days} days`;
      const said = `the newest ${what} of the custody record of ${serverId} is ${age} old`;
      return [days < OLD ? note(said, logs) : warning(said, logs, remedy)];
    };
    return [
      ...judge('checkpoint', signed, `${webjobctl} custody checkpoint --key FILE`),
      ...judge('time stamp', stamped, `${webjobctl} custody timestamp --tsa URL --ca FILE`),
    ];
  });
}
