#!/bin/sh
# Expected: GlusterFS allows 100 hard links of a file, as `storage.max-hardlinks` says, or as many as the file system below.
# Seen (Debian 12, GlusterFS 10.3, a brick on an ext4 with blocks of 4096 bytes): the count depends on the length of the names. Each link
# stores the path of its file in an extended attribute, and all of them share one block of 4096 bytes. 47 links of names like l12,
# 21 of names of about 100 bytes; the next one fails with ENOSPC on an empty disk. With `gfid2path` off it is 99. Backups that link
# unchanged files from day to day (rsync --link-dest, rsnapshot) end there, and blame the disk.
set -u
. "$(dirname "$0")/packages.sh"

unpack glusterfs-client=10.3-5 glusterfs-common=10.3-5 libglusterfs0=10.3-5 libgfrpc0=10.3-5 libgfxdr0=10.3-5 \
  liburcu8=0.13.2-1 libtirpc3=1.3.3+ds-1 libaio1=0.3.113-4
truncate -s 64M "$work/disk"
/sbin/mke2fs -q -t ext4 -b 4096 "$work/disk" || exit 2

# brick OPTION: a client with a brick in its own process. Prints how many links of short and of long names a file gets, and why no more.
brick() {
  mkdir -p "$work/brick" "$work/mount"
  printf '%s\n' 'volume posix' '  type storage/posix' "  option directory $work/brick/data" "  option gfid2path $1" 'end-volume' \
    'volume locks' '  type features/locks' '  subvolumes posix' 'end-volume' >"$work/volume"
  # Plug-ins are found in /usr only: the unpacked one lies over it, for these processes alone.
  LD_LIBRARY_PATH="$library" unshare -m -p -f --mount-proc --kill-child sh -c '
    mount --make-rprivate / && mount -t overlay -o "lowerdir=$1/root/usr:/usr" none /usr &&
      mount -o loop "$1/disk" "$1/brick" && mkdir -p "$1/brick/data" || exit 2
    glusterfs -N -f "$1/volume" -l "$1/log" "$1/mount" &
    for _ in 1 2 3 4 5 6 7 8 9 10; do mountpoint -q "$1/mount" && break; sleep 1; done
    cd "$1/mount" || exit 2
    for name in l $(printf %0100d 0); do
      links=0
      echo one >"file$name"
      while [ $links -lt 300 ] && ln "file$name" "$name$links" 2>"$1/error"; do links=$((links + 1)); done
      echo "$links: $(sed "s/.*: //" "$1/error")"
    done
    rm -rf "$1/mount/"*
    cd / && umount "$1/mount"' sh "$work"
}

expect 'links of short and of long names' '47: No space left on device
21: No space left on device' "$(brick on)"
expect 'the same without gfid2path' '99: Too many links
99: Too many links' "$(brick off)"
