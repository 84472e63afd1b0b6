#!/bin/sh
# Does with curl what an original client does with -e -f FILE COMMAND [ARGUMENT...]: GET, run, PUT.
# It passes no information about itself to the program.
set -u
[ "$1" = -e ] && [ "$2" = -f ] || exit 1
conf=$3 command=$4
shift 4
read_conf() { sed -n "s/^$1=//p" "$conf"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
user="$(read_conf URLUsername):$(read_conf URLPassword)"
query="VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=$(read_conf ClientId)&FILENAME=$command"
status=$(curl -s -u "$user" -H 'Content-Length: 0' -D "$work/head" -o "$work/$command" -w '%{http_code}' "$(read_conf URLGetURL)?$query")
[ "$status" = 200 ] || { echo "webjob: $command: $status" >&2; exit 3; }
job=$(tr -d '\r' < "$work/head" | sed -n 's/^Job-Id: //p')
chmod 700 "$work/$command"
"$work/$command" "$@" > "$work/out" 2> "$work/err" < /dev/null
printf 'Version=webjob 1.4.0\nJid=%s\nClientId=%s\nKidStatus=%s\nKidSignal=0\nKidReason=The kid exited.\nGetError=NA\nRunError=NA\n' \
  "$job" "$(read_conf ClientId)" "$?" > "$work/env"
size() { wc -c < "$work/$1" | tr -d ' '; }
put="$query&RUNTYPE=snapshot&STDOUT_LENGTH=$(size out)&STDERR_LENGTH=$(size err)&STDENV_LENGTH=$(size env)"
cat "$work/out" "$work/err" "$work/env" > "$work/body"
status=$(curl -s -u "$user" -X PUT --data-binary "@$work/body" -H "Job-Id: $job" -H 'Expect:' -o /dev/null -w '%{http_code}' "$(read_conf URLPutURL)?$put")
[ "$status" = 200 ] || { echo "webjob: PUT of $command: $status" >&2; exit 5; }
