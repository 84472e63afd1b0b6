#!/bin/sh
# Expected: in a timeline made by mac-robber and mactime stands every time of every file, those before 1970 as well.
# Seen (Debian 12, mac-robber 1.02, sleuthkit 4.11.1): mac-robber writes a time before 1970 as a number near 2^64, and mactime
# leaves it out without a word. Archives and machines without a battery make such times: list them by `find ! -newermt @0`.
set -u
. "$(dirname "$0")/packages.sh"

unpack mac-robber=1.02-13 sleuthkit=4.11.1+dfsg-1+b1
cd "$work" || exit 2
mkdir files
touch -d 1965-05-05T00:00:00Z files/early
touch -d 1975-05-05T00:00:00Z files/late
root/usr/bin/mac-robber files >body || exit 2
perl root/usr/bin/mactime -b body -y -d >timeline 2>complaints || exit 2

# lines_of FILE: when and what of the file, but for the change time, which is now.
lines_of() {
  grep "$1" timeline | grep -v -e ',\.\.c\.' -e ',\.\.\.b' | cut -d , -f 1,3
}

expect 'the later file in the timeline' '1975-05-05T00:00:00Z,ma..' "$(lines_of late)"
expect 'the earlier file as mac-robber writes it' 18446744073562498816 "$(grep early body | cut -d '|' -f 8)"
expect 'the earlier file in the timeline' '' "$(lines_of early)"
expect 'complaints of mactime' 0 "$(wc -l <complaints)"
