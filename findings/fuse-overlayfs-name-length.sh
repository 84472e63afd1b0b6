#!/bin/sh
# Expected: fuse-overlayfs, the storage of rootless containers, takes the names that the file system below it takes: 255 bytes.
# Seen (Debian 12, fuse-overlayfs 1.10): 251 bytes; four are kept for its own `.wh.` names. statfs(2) says so (f_namemax), a
# longer name is ENAMETOOLONG. A program that assumes NAME_MAX = 255 fails there only with its longest names.
set -u
. "$(dirname "$0")/packages.sh"

unpack fuse-overlayfs=1.10-1 libfuse3-3=3.14.0-4
mkdir "$work/lower" "$work/upper" "$work/work" "$work/mount"
LD_LIBRARY_PATH="$library" "$work/root/usr/bin/fuse-overlayfs" -f \
  -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" "$work/mount" >/dev/null 2>&1 &
started=$!
until_mounted "$work/mount"

# name LENGTH: a name of so many bytes.
name() { head -c "$1" /dev/zero | tr '\0' n; }
# try FOLDER LENGTH
try() { (: >"$1/$(name "$2")") 2>/dev/null && echo made || echo refused; }

expect 'file system below, 255 bytes' made "$(try "$work/lower" 255)"
expect 'statfs of the mount, longest name' 251 "$(stat -f -c %l "$work/mount")"
expect 'mount, 251 bytes' made "$(try "$work/mount" 251)"
expect 'mount, 252 bytes' refused "$(try "$work/mount" 252)"
