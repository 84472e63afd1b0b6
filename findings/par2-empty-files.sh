#!/bin/sh
# Expected: par2 records every file that it is given, so that verify misses one that is gone.
# Seen (Debian 12, par2 0.8.1): an empty file is skipped, with a line among the others and exit code 0. When it is gone, verify
# says that all files are correct. The stderr of most jobs is an empty file: put a list of digests beside the par2 set.
set -u
. "$(dirname "$0")/packages.sh"

unpack par2=0.8.1-3 libgomp1=12.2.0-14+deb12u1
export LD_LIBRARY_PATH="$library"
cd "$work" || exit 2
mkdir files
echo output >files/job.out
echo record >files/job.env
: >files/job.err
root/usr/bin/par2 create -q -q -r50 files/set.par2 files/job.env files/job.err files/job.out >created 2>&1
expect 'create over an empty file, exit code' 0 "$?"
expect 'lines about it' 1 "$(grep -c 'Skipping 0 byte file' created)"
rm files/job.err
root/usr/bin/par2 verify -q files/set.par2 >verified 2>&1
expect 'verify when it is gone, exit code' 0 "$?"
expect 'what verify says' 'All files are correct, repair is not required.' "$(grep correct verified)"
rm files/job.env
root/usr/bin/par2 verify -q files/set.par2 >verified 2>&1
expect 'verify when another one is gone, exit code' 1 "$?"
