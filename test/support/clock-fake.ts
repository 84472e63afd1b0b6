// A clock for a process and its children, by libfaketime: it can be set while they run, and the
// monotonic clock continues.
import { globSync, writeFileSync } from 'node:fs';

const LIBRARY = globSync('/usr/lib/*/faketime/libfaketime.so.1')[0];

/** For tests on machines without libfaketime (Debian: faketime). */
export const needsFakeClock = { skip: LIBRARY === undefined && 'there is no libfaketime' };

export interface FakeClock {
  /** For the processes that use it. */
  environment: Record<string, string>;
  /**
   * What a shell writes to `file` to set it, and the argument of `set`: `@2004-05-23 17:14:41` or
   * `-2h`, in faketime's syntax.
   */
  file: string;
  set(time: string): void;
}

/** A correct clock until it is set, controlled by a file. */
export function makeFakeClock(file: string): FakeClock {
  const clock: FakeClock = {
    file,
    environment: {
      LD_PRELOAD: LIBRARY ?? '',
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      TZ: 'UTC',
    },
    set: (time) => writeFileSync(file, `${time}\n`),
  };
  clock.set('+0');
  return clock;
}
