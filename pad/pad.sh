#!/bin/sh
{ # The shell runs nothing before it has read the closing brace, so a truncated file does nothing.
# A PaD file: a program that carries a payload and delivers it. Made by pad-make-script.
#     sh FILE.pad [options] command [arguments]    unpacks the payload beside FILE.pad and runs the command
#     sh FILE.pad                                  lists the payload and checks it
#     sh FILE.pad --help                           prints help
#@values@

case $0 in
  /*) pad_self=$0 ;;
  *) pad_self=./$0 ;;
esac
pad_keep='' pad_overwrite='' pad_unchecked='' pad_work='' pad_placed='' pad_caught='' pad_own_failure=125

pad_help() {
  cat <<PAD_END
Usage: $pad_file [options] [command [arguments]]

Carries $pad_name. Unpacks it beside this file, runs the command with every %payload in its
arguments replaced by $pad_name, removes it, and exits with the status of the command.
Without a command: lists the payload and checks its SHA-256.

Options, before the command:
  --keep       do not remove the payload; without a command, only unpack it
  --overwrite  replace an existing file or directory of the same name
  --unchecked  continue if no tool can compute a SHA-256; a wrong one is still refused
  --version    print what made this file
  --help       print this help
  --           the command follows

Exit codes: that of the command, 128 + n when signal n ended it, 126 or 127 when it cannot be run;
125 when it was not run because of a problem with this file or its directory. Without a command:
0 or 1.
PAD_END
}

pad_main() {
  pad_folder=${pad_self%/*}/
  pad_file=${pad_self##*/}
  pad_name=${pad_file%.pad}
  case $pad_name in
    "$pad_file" | '' | . | ..) pad_name=$pad_stored_name ;;
  esac
  while :; do
    case ${1-} in
      --keep) pad_keep=yes ;;
      --overwrite) pad_overwrite=yes ;;
      --unchecked) pad_unchecked=yes ;;
      --version) echo "$pad_made_by"; exit 0 ;;
      --help) pad_help; exit 0 ;;
      --) shift; break ;;
      -*) pad_fail "unknown option $1" "sh $pad_file --help lists them" ;;
      *) break ;;
    esac
    shift
  done
  if [ $# -eq 0 ] && [ ! "$pad_keep" ]; then pad_own_failure=1; fi
  if [ ! -f "$pad_self" ] || [ ! -r "$pad_self" ]; then
    pad_fail "cannot read itself as $pad_self" 'run it by its path; it cannot be piped into a shell'
  fi
  # A truncated download lacks at least the last byte of the last line.
  [ "$(tail -c 5 "$pad_self" && echo .)" = '====
.' ] || pad_fail 'truncated: its end is missing'
  pad_catch_signals
  if [ "$pad_own_failure" -eq 1 ]; then
    pad_list
  else
    pad_deliver "$@"
  fi
}

pad_list() {
  pad_find_decoder
  pad_find_digester || pad_fail 'no tool here can compute a SHA-256' "tried: $pad_digesters"
  pad_check_size "$(pad_frame | pad_decode "$pad_decoder" | wc -c)"
  pad_check_digest "$(pad_frame | pad_decode "$pad_decoder" | pad_digest "$pad_digester")"
  if [ "$pad_kind" = directory ]; then
    pad_frame | pad_decode "$pad_decoder" | tar tf - || pad_fail 'the tar in it cannot be listed'
  fi
  printf '%s: %s of %s bytes, SHA-256 %s: OK\n' "$pad_name" "$pad_kind" "$pad_bytes" "$pad_sha256"
}

pad_deliver() {
  pad_umask=$(umask)
  umask 077
  pad_unpack
  pad_place
  [ ! "$pad_caught" ] || pad_fail 'ended by a signal'
  pad_status=0
  if [ $# -gt 0 ]; then
    pad_count=$#
    while [ "$pad_count" -gt 0 ]; do
      pad_fill_in "$1"
      shift
      set -- "$@" "$pad_filled"
      pad_count=$((pad_count - 1))
    done
    # In a subshell, so that no builtin can end this shell before it has removed its files.
    (umask "$pad_umask" && exec "$@")
    pad_status=$?
    # ksh and yash count signals from 256 and 384.
    [ "$pad_status" -le 255 ] || pad_status=$((128 + pad_status % 128))
  fi
  pad_tidy
  return "$pad_status"
}

# Replaces every %payload in $1.
pad_fill_in() {
  pad_filled='' pad_rest=$1 pad_token=%payload
  while :; do
    case $pad_rest in
      *"$pad_token"*)
        pad_filled=$pad_filled${pad_rest%%"$pad_token"*}$pad_name
        pad_rest=${pad_rest#*"$pad_token"}
        ;;
      *) break ;;
    esac
  done
  pad_filled=$pad_filled$pad_rest
}

# Decodes the payload into a private directory and checks it there.
pad_unpack() {
  pad_find_decoder
  pad_find_digester || [ "$pad_unchecked" ] || pad_fail 'no tool here can compute a SHA-256, so nothing is run' \
    "tried: $pad_digesters; --unchecked before the command runs it unchecked"
  pad_work=${pad_folder}.pad.$$ pad_count=0
  until mkdir "$pad_work" 2>/dev/null; do
    pad_count=$((pad_count + 1))
    if [ "$pad_count" -gt 99 ]; then
      pad_work=''
      pad_fail "cannot make a directory in $pad_folder" 'the payload is unpacked beside this file, so its directory must be writable'
    fi
    pad_work=${pad_folder}.pad.$$.$pad_count
  done
  pad_unpacked=$pad_work/$pad_name
  pad_frame | pad_decode "$pad_decoder" >"$pad_unpacked" || pad_fail 'cannot be unpacked: damaged, or no space left'
  pad_check_size "$(wc -c <"$pad_unpacked")"
  [ ! "$pad_digester" ] || pad_check_digest "$(pad_digest "$pad_digester" <"$pad_unpacked")"
}

# Gives the checked payload its name, never through a link: mkdir follows none, and neither do ln and
# mv into a directory.
pad_place() {
  [ "$pad_name" != "$pad_file" ] || pad_fail "would replace itself by $pad_name" 'rename this file to a name that ends in .pad'
  pad_target=$pad_folder$pad_name
  [ "$pad_overwrite" ] || pad_is_free || pad_fail_taken
  if [ "$pad_kind" = directory ]; then
    [ ! "$pad_overwrite" ] || rm -rf "$pad_target"
    mkdir "$pad_target" || pad_fail_taken
    pad_placed=yes
    (cd "$pad_target" && tar xmof -) <"$pad_unpacked" || pad_fail 'the tar in it cannot be unpacked'
  else
    chmod "$pad_mode" "$pad_unpacked"
    if [ "$pad_overwrite" ]; then
      mv -f "$pad_unpacked" "$pad_folder" || pad_fail_taken
    elif ! ln "$pad_unpacked" "$pad_folder" 2>/dev/null; then
      # Some file systems have no hard links.
      if ! pad_is_free || ! mv -f "$pad_unpacked" "$pad_folder"; then pad_fail_taken; fi
    fi
    pad_placed=yes
  fi
  rm -rf "$pad_work"
  pad_work=''
}

pad_is_free() {
  [ ! -e "$pad_target" ] && [ ! -L "$pad_target" ]
}

pad_fail_taken() {
  pad_fail "$pad_target already exists" 'remove it, or use --overwrite before the command'
}

# Prints the body of this file as uudecode reads it: a line, the base64, and another line.
pad_frame() {
  sed -n '/^begin-base64 /,$p' "$pad_self"
}

pad_decode() {
  case $1 in
    'base64 -d') sed -e 1d -e '$d' | base64 -d ;;
    'base64 -D') sed -e 1d -e '$d' | base64 -D ;;
    openssl) sed -e 1d -e '$d' | openssl base64 -d ;;
    uudecode) uudecode -o /dev/stdout | cat ;;
    'uudecode -p') uudecode -p ;;
    # Needs no module: base64 is uuencode with other letters and without a length.
    perl) sed -e 1d -e '$d' | perl -ne 'BEGIN { binmode STDOUT } y#A-Za-z0-9+/##cd; y#A-Za-z0-9+/# -_#; print unpack("u", chr(32 + length($_) * 3 / 4) . $_)' ;;
  esac
}

pad_digest() {
  case $1 in
    sha256sum) sha256sum ;;
    shasum) shasum -a 256 ;;
    openssl) openssl dgst -sha256 ;;
    sha256) sha256 ;;
    cksum) cksum -a sha256 ;;
    perl) perl -MDigest::SHA -e 'binmode STDIN; print Digest::SHA->new(256)->addfile(*STDIN)->hexdigest' ;;
  esac
}

# Tries each tool on a known line, which shows whether it exists and of which kind it is. (In yash the
# variable of a loop ends with the loop.)
pad_find_decoder() {
  for pad_tool in 'base64 -d' 'base64 -D' openssl uudecode 'uudecode -p' perl; do
    pad_decoder=$pad_tool
    case $( (echo 'begin-base64 600 x' && echo 'YWJjCg==' && echo '====') | pad_decode "$pad_decoder" 2>/dev/null) in
      abc) return 0 ;;
    esac
  done
  pad_fail 'no tool here can decode base64' 'tried: base64, openssl, uudecode, perl'
}

pad_digesters='sha256sum, shasum, openssl, sha256, cksum, perl'
pad_find_digester() {
  for pad_tool in sha256sum shasum openssl sha256 cksum perl; do
    pad_digester=$pad_tool
    case $(echo abc | pad_digest "$pad_digester" 2>/dev/null) in
      *edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb*) return 0 ;;
    esac
  done
  pad_digester=''
  return 1
}

# Some versions of wc print blanks before the number.
pad_check_size() {
  case " $1" in
    *" $pad_bytes") ;;
    *) pad_fail "damaged: unpacks to $1 bytes instead of $pad_bytes" ;;
  esac
}

pad_check_digest() {
  case $1 in
    *"$pad_sha256"*) ;;
    *) pad_fail 'damaged: its SHA-256 has changed' ;;
  esac
}

# Signals are handled between two steps. The command itself gets signals that are sent to the group.
pad_catch_signals() {
  for pad_signal in 1 2 3 13 15; do
    # shellcheck disable=SC2064 # expanded now: each trap contains its number
    trap "pad_caught=$pad_signal" "$pad_signal"
  done
}

pad_fail() {
  pad_keep=''
  pad_tidy
  if [ ! "$pad_caught" ]; then
    printf '%s: error: %s\n' "$pad_file" "$1" >&2
    [ $# -lt 2 ] || printf '%s: hint: %s\n' "$pad_file" "$2" >&2
    exit "$pad_own_failure"
  fi
  exit $((128 + pad_caught))
}

pad_tidy() {
  [ ! "$pad_work" ] || rm -rf "$pad_work"
  [ ! "$pad_placed" ] || [ "$pad_keep" ] || rm -rf "$pad_target"
}

pad_main "$@"; exit; }
