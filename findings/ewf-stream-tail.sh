#!/bin/sh
# Expected: ewfacquirestream keeps every byte of a stream, or says that it cannot.
# Seen (Debian 12, ewf-tools 20140813): of a stream whose length is no multiple of 512 the bytes behind the last whole sector are
# not in the image. It says SUCCESS, exits with 0, and states the digests of the whole stream: its own ewfverify then fails.
# Put such evidence into an EWF image only when it is padded, with its true length on record.
set -u
. "$(dirname "$0")/packages.sh"

unpack ewf-tools=20140813-1+b1 libewf2=20140813-1+b1 libbfio1=20170123-6
export LD_LIBRARY_PATH="$library" PATH="$work/root/usr/bin:$PATH"
cd "$work" || exit 2

# acquire NAME BYTES: makes an image of so many bytes of text; prints its size and what ewfverify says of it.
acquire() {
  yes evidence | head -c "$2" >"$1.raw"
  ewfacquirestream -C 1 -D stream -e examiner -E 1 -N none -d sha256 -t "$1" <"$1.raw" >"$1.log" 2>&1
  code=$?
  grep -q "$(sha256sum <"$1.raw" | cut -d ' ' -f 1)" "$1.log" || code="$code, other digest"
  size=$(ewfinfo "$1.E01" 2>/dev/null | sed -n 's/.*Media size:.*(\([0-9]*\) bytes).*/\1/p')
  judged=$(ewfverify "$1.E01" 2>/dev/null | sed -n 's/^ewfverify: //p')
  echo "exit code $code, $size bytes, $judged"
}

expect '512,000 bytes' 'exit code 0, 512000 bytes, SUCCESS' "$(acquire whole 512000)"
expect '512,100 bytes' 'exit code 0, 512000 bytes, FAILURE' "$(acquire odd 512100)"
