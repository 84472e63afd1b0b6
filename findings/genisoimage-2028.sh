#!/bin/sh
# Expected: a disc image with Rock Ridge has the times of the files that are on it.
# Seen (Debian 12, genisoimage 1.1.11): every time from 2028 on is written a day late.
# xorriso writes and reads them right. Take xorriso for evidence on a disc; a machine whose clock is ahead meets this today.
set -u
. "$(dirname "$0")/packages.sh"

unpack genisoimage=9:1.1.11-3.4 xorriso=1.5.4-4 libisoburn1=1.5.4-4 libisofs6=1.5.4-1 libburn4=1.5.4-1 libjte2=1.22-3
export LD_LIBRARY_PATH="$library" TZ=UTC
cd "$work" || exit 2
mkdir files
for day in 2027-12-31 2028-01-01 2028-02-29 2045-06-15; do touch -d "$day 12:00" "files/$day"; done
root/usr/bin/genisoimage -quiet -R -o genisoimage.iso files || exit 2
root/usr/bin/xorriso -as mkisofs -quiet -R -o xorriso.iso files 2>/dev/null || exit 2

# times_in IMAGE: the files in it and their times.
times_in() {
  root/usr/bin/xorriso -indev "$1" -lsl / 2>/dev/null | sed -n "s/.* \([A-Z][a-z]*\)  *\([0-9]*\)  *20.. '\(.*\)'/\3 is \1 \2/p" | paste -s -d , -
}

expect 'by xorriso' '2027-12-31 is Dec 31,2028-01-01 is Jan 1,2028-02-29 is Feb 29,2045-06-15 is Jun 15' "$(times_in xorriso.iso)"
expect 'by genisoimage' '2027-12-31 is Dec 31,2028-01-01 is Jan 2,2028-02-29 is Mar 1,2045-06-15 is Jun 16' "$(times_in genisoimage.iso)"
