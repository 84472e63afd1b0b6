// Checks how long ago the custody records were signed, time-stamped and cosigned, if they ever
// were.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { readCosigners, whenCosigned } from '../../evidence/cosigners.ts';
import { listServers, newestCheckpoint, readCheckpoints } from '../site/logs.ts';
import { newestStamp } from '../site/stamps.ts';
import { error, type Finding, note, warning } from './finding.ts';
import type { Mends } from './mends.ts';

const DAY_MS = 86_400_000;
/** Days after which the next checkpoint has probably been forgotten. */
const OLD = 31;
/** The policy of a site whose checkpoints go to witnesses, beside nph-webjob.cfg. */
const POLICY = 'webjob-witnesses';

/** Reports nothing about a record without checkpoints, because a site may keep them elsewhere. */
export function checkCheckpoints(settings: ServerSettings, mends: Mends): Finding[] {
  const { logfilesDirectory: logs } = settings;
  const { webjobctl } = mends;
  const ages = listServers(settings).flatMap((serverId) => {
    const [signed, stamped] = [newestCheckpoint(settings, serverId), newestStamp(settings, serverId)];
    const judge = (what: string, at: Date | undefined, remedy: string): Finding[] => {
      if (!at) return [];
      return [judgeAge(`the newest ${what} of the custody record of ${serverId}`, at, logs, remedy)];
    };
    return [
      ...judge('checkpoint', signed, `${webjobctl} custody checkpoint --key FILE`),
      ...judge('time stamp', stamped, `${webjobctl} custody timestamp --tsa URL --ca FILE`),
    ];
  });
  return [...ages, ...checkWitnesses(settings, mends)];
}

function judgeAge(what: string, at: Date, where: string, remedy: string): Finding {
  const days = Math.floor((Date.now() - at.getTime()) / DAY_MS);
  const age = days < 1 ? 'less than a day' : days === 1 ? 'a day' : `${days} days`;
  const said = `${what} is ${age} old`;
  return days < OLD ? note(said, where) : warning(said, where, remedy);
}

function checkWitnesses(settings: ServerSettings, { etcDirectory, webjobctl }: Mends): Finding[] {
  const path = join(etcDirectory, POLICY);
  if (!existsSync(path)) return [];
  const remedy = `${webjobctl} custody checkpoint --add FILE --key FILE`;
  try {
    const cosigners = readCosigners(path);
    return listServers(settings).flatMap((serverId) => {
      const texts = readCheckpoints(settings, serverId).map(({ text }) => text);
      if (texts.length === 0) return [];
      const newest = texts
        .reverse()
        .map((text) => whenCosigned(text, cosigners))
        .find((at) => at !== undefined);
      const what = `the newest checkpoint of the custody record of ${serverId} that enough witnesses have cosigned`;
      if (newest) return [judgeAge(what, newest, path, remedy)];
      return [
        warning(`too few witnesses have cosigned any checkpoint of the custody record of ${serverId}`, path, remedy),
      ];
    });
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    return [error(failure.message, path, 'each line is one of c2sp.org/tlog-policy')];
  }
}
