#!/bin/sh
# Expected: dcfldd vf=FILE compares as cmp does, and its exit code tells whether the files are the same.
# Seen (Debian 12, dcfldd 1.9): it exits with 0 either way. `Total: Mismatch` on stderr is all that tells.
set -u
. "$(dirname "$0")/packages.sh"

unpack dcfldd=1.9-2
cd "$work" || exit 2
echo evidence >one
echo evidence >same
echo Evidence >other

# compare FILE FILE: the exit code, and the last line.
compare() {
  root/usr/bin/dcfldd if="$1" vf="$2" >said 2>&1
  echo "exit code $?, $(grep . said | tail -n 1)"
}

expect 'the same bytes' 'exit code 0, Total: Match' "$(compare one same)"
expect 'other bytes' 'exit code 0, Total: Mismatch' "$(compare one other)"
