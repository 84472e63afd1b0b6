# Sourced by the findings: a temporary folder that is removed at the end, and pinned Debian packages unpacked in it.
# Nothing is installed on the machine. The findings run apart from the product and outside its tests.

# mktemp fills in the X.
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
started='' mounted=''

cleanup() {
  for folder in $mounted; do umount "$folder" 2>/dev/null || fusermount -u "$folder" 2>/dev/null; done
  for pid in $started; do kill "$pid" 2>/dev/null; done
  wait
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# unpack NAME=VERSION...: downloads exactly these versions (Debian 12, amd64) and unpacks them below $work/root.
unpack() {
  mkdir -p "$work/debs" "$work/root"
  (cd "$work/debs" && apt-get -o APT::Sandbox::User=root download "$@" >/dev/null) || {
    echo "cannot download $*: is this Debian 12 with an up to date package list (apt-get update)?" >&2
    exit 2
  }
  for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
  library=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
}

# expect WHAT WANTED SEEN: fails when what was seen is no longer what this finding states.
expect() {
  if [ "$2" = "$3" ]; then
    echo "$1: $3"
  else
    echo "$1: $3 (this finding states: $2)" >&2
    exit 1
  fi
}

# until_mounted FOLDER: waits at most ten seconds.
until_mounted() {
  mounted="$mounted $1"
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    mountpoint -q "$1" && return
    sleep 1
  done
  echo "$1 was not mounted: this needs /dev/fuse and root" >&2
  exit 2
}
