#!/bin/sh
# Expected: a FUSE file system either passes fsync(2) of a folder on, or refuses it (EINVAL, ENOSYS), so that a program can tell.
# Seen (Debian 12): bindfs 1.14.7, mergerfs 2.33.5, unionfs-fuse 1.0 and ntfs-3g 2022.10.3 answer 0 and pass nothing on: the
# kernel takes a missing FSYNCDIR for success. gocryptfs 2.3 and fuse-overlayfs 1.10 pass it on. The fsync of a file reaches the
# lower file system in all six. A name that such a "synced" folder holds can be gone after a power failure.
set -u
. "$(dirname "$0")/packages.sh"

unpack bindfs=1.14.7-1 mergerfs=2.33.5-1 unionfs-fuse=1.0-1+b1 ntfs-3g=1:2022.10.3-1+deb12u4 \
  libntfs-3g89=1:2022.10.3-1+deb12u4 gocryptfs=2.3-1+b4 fuse-overlayfs=1.10-1 \
  libfuse2=2.9.9-6+b1 libfuse3-3=3.14.0-4 strace=6.1-0.1
root=$work/root
export LD_LIBRARY_PATH="$library"

# measure NAME WANTED COMMAND...: mounts NAME under strace; how many fsyncs of a file, and of the folder, reach what lies below?
measure() {
  name=$1 wanted=$2
  shift 2
  mkdir -p "$work/$name/mount"
  "$root/usr/bin/strace" -f -qq -o "$work/$name/trace" -e trace=fsync,fdatasync "$@" >"$work/$name/log" 2>&1 &
  started="$started $!"
  until_mounted "$work/$name/mount"
  : >"$work/$name/trace"
  answers=$(perl -e '
    use Fcntl;
    my $fsync = 74; # fsync(2) on x86_64
    chdir shift or die;
    open my $file, ">", "file" or die; syswrite $file, "x";
    print syscall($fsync, fileno $file), " ";
    sysopen my $folder, ".", O_RDONLY | O_DIRECTORY or die;
    print syscall($fsync, fileno $folder);
  ' "$work/$name/mount")
  sleep 1
  expect "$name: answers of fsync(file) and fsync(folder)" '0 0' "$answers"
  expect "$name: fsyncs that reached the file system below" "$wanted" "$(grep -cE 'fsync|fdatasync' "$work/$name/trace")"
}

for name in bindfs mergerfs unionfs gocryptfs overlay; do mkdir -p "$work/$name/lower"; done
mkdir -p "$work/overlay/upper" "$work/overlay/work" "$work/ntfs"
echo secret >"$work/password"
"$root/usr/bin/gocryptfs" -init -q -passfile "$work/password" "$work/gocryptfs/lower" || exit 2
truncate -s 64M "$work/ntfs/image"
"$root/sbin/mkntfs" -F -Q "$work/ntfs/image" >/dev/null 2>&1 || exit 2

measure bindfs 1 "$root/usr/bin/bindfs" -f "$work/bindfs/lower" "$work/bindfs/mount"
measure mergerfs 1 "$root/usr/bin/mergerfs" -f "$work/mergerfs/lower" "$work/mergerfs/mount"
measure unionfs 1 "$root/usr/bin/unionfs" -f "$work/unionfs/lower=RW" "$work/unionfs/mount"
measure ntfs 1 "$root/bin/ntfs-3g" -o no_detach "$work/ntfs/image" "$work/ntfs/mount"
measure gocryptfs 2 "$root/usr/bin/gocryptfs" -fg -passfile "$work/password" "$work/gocryptfs/lower" "$work/gocryptfs/mount"
measure overlay 2 "$root/usr/bin/fuse-overlayfs" -f \
  -o "lowerdir=$work/overlay/lower,upperdir=$work/overlay/upper,workdir=$work/overlay/work" "$work/overlay/mount"
