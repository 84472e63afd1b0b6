#!/bin/sh
# Expected: of the inodes that statfs(2) reports, the free ones are a part (f_ffree <= f_files), as df and every exporter assume.
# Seen (Debian 12, ntfs-3g 2022.10.3): the first file that is made on a new volume lowers f_files and raises f_ffree, so that more
# are free than there are: df -i prints a negative used count. Watch free space there, not inodes.
set -u
. "$(dirname "$0")/packages.sh"

unpack ntfs-3g=1:2022.10.3-1+deb12u4 libntfs-3g89=1:2022.10.3-1+deb12u4 libfuse3-3=3.14.0-4
mkdir "$work/mount"
truncate -s 64M "$work/image"
export LD_LIBRARY_PATH="$library"
"$work/root/sbin/mkntfs" -F -Q "$work/image" >/dev/null 2>&1 || exit 2
"$work/root/bin/ntfs-3g" -o no_detach "$work/image" "$work/mount" >/dev/null 2>&1 &
started=$!
until_mounted "$work/mount"

: >"$work/mount/file"
total=$(stat -f -c %c "$work/mount")
free=$(stat -f -c %d "$work/mount")
echo "f_files $total, f_ffree $free"
expect 'more free inodes than inodes' yes "$([ "$free" -gt "$total" ] && echo yes || echo no)"
expect 'used inodes by df -i, below zero' yes "$(df --output=iused "$work/mount" | grep -q -e - && echo yes || echo no)"
