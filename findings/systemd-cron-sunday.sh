#!/bin/sh
# Expected: in the last field of a crontab 7 is Sunday also at the end of a range, as in crontab(5): `0-7` and `1-7` are every
# day, `5-7` is Friday to Sunday. A line that is refused makes no timer.
# Seen (Debian 12, systemd-cron 1.15.19): `0-7` runs on Sundays alone. `1-7` and `5-7` are called garbled in the log, and run
# every day. Write names (`fri,sat,sun`), or `*`.
set -u
. "$(dirname "$0")/packages.sh"

unpack systemd-cron=1.15.19-5
mkdir "$work/etc" "$work/layers" "$work/timers"
cat >"$work/crontab" <<'CRONTAB'
0 1 * * 7 root true
0 2 * * fri,sat,sun root true
0 3 * * 0-7 root true
0 4 * * 1-7 root true
0 5 * * 5-7 root true
CRONTAB

# It reads /etc/crontab and /etc/cron.d: this one sees an /etc of its own.
unshare -m sh -eu -c '
  mount -t tmpfs none "$1/layers"
  mkdir "$1/layers/upper" "$1/layers/work"
  mount -t overlay none -o "lowerdir=/etc,upperdir=$1/layers/upper,workdir=$1/layers/work" /etc
  rm -f /etc/cron.d/*
  cp "$1/crontab" /etc/crontab
  exec python3 "$1/root/lib/systemd/system-generators/systemd-crontab-generator" "$1/timers"
' sh "$work" >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  exit 2
}

# days_at HOUR: the days of the timer that was made for it.
days_at() {
  cat "$work"/timers/*.timer | sed -n "s/^OnCalendar= *//; s/ *\*-\*-\* $1:0:00\$//p" | sed 's/^$/every day/'
}

expect '7' Sun "$(days_at 1)"
expect 'fri,sat,sun' Sun,Fri,Sat "$(days_at 2)"
expect '0-7' Sun "$(days_at 3)"
expect '1-7' 'every day' "$(days_at 4)"
expect '5-7' 'every day' "$(days_at 5)"
expect 'called garbled' 2 "$(grep -c garbled "$work/log")"
