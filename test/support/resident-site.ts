// A separate site for the tests of one describe, and the persistent workers that they start.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { type Resident, startResident } from '../../scripts/resident.ts';
import { makeSite, type Site } from '../../scripts/site.ts';

export interface ResidentUse {
  site(): Site;
  /** Ended at the end, if not before. */
  start(args?: string[]): Promise<Resident>;
}

/** `usual` are the default options of a process. */
export function useResidentSite(settings: Record<string, string> = {}, usual: string[] = []): ResidentUse {
  const started: Resident[] = [];
  let made: Site | undefined;
  before(() => {
    made = makeSite({ resident: true, settings });
  });
  after(async () => {
    await Promise.all(started.map((resident) => resident.stop()));
    made?.remove();
  });
  const site = (): Site => {
    assert.ok(made);
    return made;
  };
  const start = async (args = usual): Promise<Resident> => {
    const resident = await startResident(site(), args);
    started.push(resident);
    return resident;
  };
  return { site, start };
}
