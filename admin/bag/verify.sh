#!/bin/sh
# Checks the package in the directory of this file, or in the given one: every file, every stream,
# every proof and every signature. Needs a POSIX shell and its tools, sha256sum, and openssl 3, but
# neither WebJob nor a network.
#
#     sh VERIFY.sh [DIRECTORY]
#
# Prints a line for each check: OK, FAILED, or NOTE for a fact that this package cannot prove. Exits
# with 0 when no check failed, 1 when one failed, and 2 when the checks could not be made.
# README.txt describes each file.
#
# A package cannot prove that it was not replaced: anyone who can change all of it can make new
# lists. The digest of the list that covers everything else is printed at the end; compare it with
# the one that the sender gave you separately. Compare the keys with those that you know from their
# owners.

set -u
LC_ALL=C
export LC_ALL
umask 077

passed=0 failed=0 noted=0 work=''
# The checkpoints that were found valid, and the keys that were found to belong to their names.
checkpoints='' owned=''
return=$(printf '\r')

ok() {
  passed=$((passed + 1))
  printf 'OK      %s\n' "$1"
}

fail() {
  failed=$((failed + 1))
  # Names and findings may contain control characters of a terminal.
  printf 'FAILED  %s: %s\n' "$1" "$2" | tr -c '\012\040-\176\200-\377' '?'
}

note() {
  noted=$((noted + 1))
  printf 'NOTE    %s: %s\n' "$1" "$2"
}

give_up() {
  printf 'VERIFY.sh: error: %s\n' "$1" >&2
  exit 2
}

tidy() {
  [ ! "$work" ] || rm -rf "$work"
}

# The SHA-256 of standard input.
digest() {
  sum=$(sha256sum)
  printf '%s' "${sum%% *}"
}

# True for a decimal number of at most 15 digits. The shell would read one that begins with 0 as
# octal.
is_number() {
  case $1 in
    0) return 0 ;;
    '' | 0* | *[!0-9]* | ????????????????*) return 1 ;;
  esac
}

# --- The bag (RFC 8493): the lists name every file, and every file has the digest in its list.

check_bag() {
  printf 'BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n' >"$work/bagit"
  if cmp -s "$work/bagit" bagit.txt; then
    ok 'bagit.txt: a BagIt bag, version 1.0'
  else
    fail bagit.txt 'not that of a BagIt bag, version 1.0'
  fi
  find . ! -type f ! -type d >"$work/strange"
  while IFS= read -r name; do fail "${name#./}" 'a link, or not a regular file'; done <"$work/strange"
  find . -type f | sed 's/^\.\///' >"$work/found"
  grep '^data/' "$work/found" >"$work/found-data"
  grep -v -e '^data/' -e '^tagmanifest-sha256\.txt$' "$work/found" >"$work/found-tag"
  check_list tagmanifest-sha256.txt "$work/found-tag"
  check_list manifest-sha256.txt "$work/found-data"
}

check_list() {
  list=$1 listed=0 good=0 bad=0
  # Every line has 64 digits, two blanks, and a name that stays inside of the package.
  if [ ! -s "$list" ] ||
    grep -q -v -E '^[0-9a-f]{64}  [A-Za-z0-9_][A-Za-z0-9_.~+-]*(/[A-Za-z0-9_][A-Za-z0-9_.~+-]*)*$' "$list"; then
    fail "$list" 'not a list of SHA-256 and names'
    return
  fi
  cut -c 67- "$list" >"$work/listed"
  # A name that occurs once is in only one of the two lists.
  sort "$work/listed" "$work/listed" "$2" | uniq -u >"$work/unlisted"
  while IFS= read -r name; do fail "$name" "not in $list"; done <"$work/unlisted"
  [ -s "$work/unlisted" ] || ok "$list: no file is missing from it"
  # sha256sum prints NAME: OK or NAME: FAILED, with further words for a missing file.
  sha256sum -c "$list" 2>"$work/errors" | sed -n 's/^\(.*\): OK$/\1/p' >"$work/good"
  sort "$work/good" "$work/good" "$work/listed" | uniq -u >"$work/bad"
  while IFS= read -r name; do listed=$((listed + 1)); done <"$work/listed"
  while IFS= read -r name; do
    good=$((good + 1))
    ok "$name: SHA-256"
  done <"$work/good"
  while IFS= read -r name; do
    bad=$((bad + 1))
    fail "$name" "missing, or not the SHA-256 of $list"
  done <"$work/bad"
  [ $((good + bad)) -eq "$listed" ] || fail "$list" 'cannot be checked'
}

# --- Signed notes (c2sp.org/signed-note): a text, a blank line, and a line for each signature.

# Checks the note in $1, called $2 in messages, with the keys in data/keys/$3. Leaves the text of
# the note in $work/text. With $4 only signatures of that name count.
check_note() {
  place=$2 keys=data/keys/$3 wanted=${4-} signers='' unknown='' wrong=''
  {
    while IFS= read -r line && [ -n "$line" ]; do printf '%s\n' "$line"; done >"$work/text"
    while IFS=' ' read -r dash name encoded rest; do
      if [ "$dash" != '—' ] || [ -z "$encoded" ] || [ -n "$rest" ]; then
        wrong='a line below the text is not a signature'
      elif [ -z "$wanted" ] || [ "$name" = "$wanted" ]; then
        check_signature "$name" "$encoded" </dev/null
        case $? in
          0) signers="$signers $name" ;;
          1) wrong="the signature of $name is wrong" ;;
          *) unknown=$name ;;
        esac
      fi
    done
  } <"$1"
  if [ "$wrong" ]; then
    fail "$place" "$wrong"
  elif [ "$signers" ]; then
    ok "$place: signed by$signers"
  elif [ "$unknown" ] && [ ! -d "$keys" ]; then
    note "$place" "signed by $unknown, whose key is not in this package"
  else
    wrong="no signature${wanted:+ of $wanted} with a key in $keys"
    fail "$place" "$wrong"
  fi
  [ ! "$wrong" ]
}

# Checks the signature $2 of the key named $1 over $work/text. Returns 1 for a wrong signature, 2
# when the key is not in $keys.
check_signature() {
  is_base64 "$2" || return 1
  printf '%s\n' "$2" | openssl base64 -d -A >"$work/decoded"
  tail -c +5 "$work/decoded" >"$work/signature"
  # shellcheck disable=SC2046 # split into four words
  set -- "$1" $(od -An -tx1 -N4 "$work/decoded")
  id=$2$3$4$5 key=$keys/$2$3$4$5.pem
  [ -f "$key" ] || return 2
  case $owned in
    *"
$key $1
"*) ;;
    *) owns_key "$1" 001 || return 1 ;;
  esac
  is_signed "$work/text"
}

# Whether $work/signature is a signature of the key in $key over the file $1.
is_signed() {
  openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$1" -sigfile "$work/signature" >/dev/null 2>&1
}

# Whether the key in $key has the name $1 and the type $2. The id is the beginning of the SHA-256 of
# the name, a newline, the type (octal: 001 is Ed25519, 004 is a witness with an Ed25519 key), and
# the 32 bytes of the key.
owns_key() {
  openssl pkey -pubin -in "$key" -outform DER -out "$work/key" 2>/dev/null || return 1
  own=$({ printf "%s\\n\\$2" "$1" && tail -c 32 "$work/key"; } | digest)
  [ "${own%"${own#????????}"}" = "$id" ] || return 1
  owned="$owned
$key $1
"
}

# True for canonical base64 of a number of bytes that is two more than a multiple of three, such as
# 32: the unused bits of the last letter are 0.
is_base64() {
  case $1 in
    *[!A-Za-z0-9+/=]* | *=?*) return 1 ;;
    *[AEIMQUYcgkosw048]=) [ $((${#1} % 4)) -eq 0 ] ;;
    *) return 1 ;;
  esac
}

# --- Merkle trees (RFC 6962, RFC 9162): whether a path leads from an entry to the root of a tree.

# Whether the hashes in $work/path, one on each line, lead from the entry $1, which has the number
# $2 in a tree of $3 entries, to the root $4.
is_included() {
  position=$2 last=$(($3 - 1)) node=$work/node.a other=$work/node.b
  [ "$position" -le "$last" ] || return 1
  printf '\000%s' "$1" | openssl dgst -sha256 -binary >"$node"
  while IFS= read -r hash; do
    [ "$last" -ne 0 ] && [ ${#hash} -eq 44 ] && is_base64 "$hash" || return 1
    printf '%s\n' "$hash" | openssl base64 -d -A >"$work/sibling"
    if [ $((position % 2)) -eq 1 ] || [ "$position" -eq "$last" ]; then
      join_nodes "$work/sibling" "$node" >"$other"
      while [ $((position % 2)) -eq 0 ] && [ "$position" -ne 0 ]; do
        position=$((position / 2)) last=$((last / 2))
      done
    else
      join_nodes "$node" "$work/sibling" >"$other"
    fi
    hash=$node node=$other other=$hash
    position=$((position / 2)) last=$((last / 2))
  done <"$work/path"
  [ "$last" -eq 0 ] && [ "$(openssl base64 -A <"$node")" = "$4" ]
}

join_nodes() {
  { printf '\001' && cat "$1" "$2"; } | openssl dgst -sha256 -binary
}

# --- Checkpoints (c2sp.org/tlog-checkpoint): the name of a log, its number of entries, and the root
# of its tree.

# Reads the checkpoint in $1 into origin, size and root.
read_checkpoint() {
  { IFS= read -r origin && IFS= read -r size && IFS= read -r root; } <"$1" || return 1
  [ -n "$origin" ] && is_number "$size" && [ ${#root} -eq 44 ]
}

# Checks the checkpoint in $1, called $2 in messages.
check_checkpoint() {
  if ! read_checkpoint "$1"; then
    fail "$2" 'not a checkpoint'
    return 1
  fi
  check_note "$1" "$2" checkpoints "$origin" || return 1
  [ ! -f "$policy" ] || check_cosigners "$1" "$2"
}

check_checkpoints() {
  for file in data/checkpoints/*.checkpoint; do
    [ ! -f "$file" ] || ! check_checkpoint "$file" "$file" || checkpoints="$checkpoints $file"
  done
  for file in data/checkpoints/*.tsr; do
    [ ! -f "$file" ] || check_stamp "$file" "${file%.tsr}.checkpoint"
  done
}

# --- Witnesses (c2sp.org/tlog-cosignature): parties that have seen a checkpoint, and have checked
# that it extends the one that they saw before.

policy=data/keys/witnesses/policy

# Whether enough witnesses of the policy have signed the checkpoint in $1, called $2 in messages.
# The text of the checkpoint is in $work/text.
check_cosigners() {
  cosigned=' ' cosigners='' wrong=''
  {
    while IFS= read -r line && [ -n "$line" ]; do :; done
    while IFS=' ' read -r dash name encoded rest; do
      [ "$dash" = '—' ] && [ -z "$rest" ] || continue
      check_cosignature "$name" "$encoded" </dev/null
      case $? in
        0) cosigned="$cosigned$name+$id " cosigners="$cosigners $name" ;;
        1) wrong=$name ;;
      esac
    done
  } <"$1"
  if [ "$wrong" ]; then
    fail "$2" "the cosignature of $wrong is wrong"
  elif is_quorum; then
    ok "$2: cosigned by${cosigners:- nobody}, as $policy requires"
  else
    wrong=quorum
    fail "$2" "not cosigned as $policy requires"
  fi
  [ ! "$wrong" ]
}

# Checks the cosignature $2 of the witness named $1 over its time and $work/text. Returns 1 for a
# wrong cosignature, 2 when the key of the witness is missing.
check_cosignature() {
  # 4 bytes of the key id, 8 of the time, 64 of the signature.
  case ${2%==} in
    *[!A-Za-z0-9+/]*) return 2 ;;
    *[AQgw]) [ ${#2} -eq 104 ] && [ "$2" != "${2%==}" ] || return 2 ;;
    *) return 2 ;;
  esac
  printf '%s\n' "$2" | openssl base64 -d -A >"$work/decoded"
  tail -c +13 "$work/decoded" >"$work/signature"
  # shellcheck disable=SC2046 # split into words
  set -- "$1" $(od -An -tx1 -N12 "$work/decoded")
  id=$2$3$4$5 key=data/keys/witnesses/$2$3$4$5.pem time=$((0x$9${10}${11}${12}${13}))
  [ -f "$key" ] || return 2
  [ "$6$7$8" = 000000 ] && [ "$time" -le 253402300799 ] && owns_key "$1" 004 || return 1
  { printf 'cosignature/v1\ntime %s\n' "$time" && cat "$work/text"; } >"$work/cosigned"
  is_signed "$work/cosigned"
}

# Whether the witnesses in $cosigned are enough for the policy (c2sp.org/tlog-policy). A line of the
# policy refers only to names in earlier lines.
is_quorum() {
  met=' none ' quorum=''
  set -f
  while read -r kind name first members; do
    case $kind in
      witness)
        # NAME+ID+KEY: the key may contain a plus.
        rest=${first#*+}
        case $cosigned in
          *" ${first%%+*}+${rest%%+*} "*) ! is_key "${rest%%+*}" "${rest#*+}" || met="$met$name " ;;
        esac
        ;;
      group)
        count=0 all=0
        for member in $members; do
          all=$((all + 1))
          case $met in
            *" $member "*) count=$((count + 1)) ;;
          esac
        done
        case $first in
          any) first=1 ;;
          all) first=$all ;;
        esac
        ! is_number "$first" || [ "$count" -lt "$first" ] || met="$met$name "
        ;;
      quorum) quorum=$name ;;
    esac
  done <"$policy"
  set +f
  [ "$quorum" ] && [ "$met" != "${met#*" $quorum "}" ]
}

# Whether the witness key with the id $1 is $2, and not another key with the same id.
is_key() {
  openssl pkey -pubin -in "data/keys/witnesses/$1.pem" -outform DER -out "$work/key" 2>/dev/null </dev/null || return 1
  [ "$2" = "$({ printf '\004' && tail -c 32 "$work/key"; } | openssl base64 -A)" ]
}

# --- Time stamps (RFC 3161): statements of an authority that a checkpoint existed at a time.

check_stamp() {
  if [ ! -f data/keys/tsa-ca.pem ]; then
    note "$1" "the certificate of the authority's CA is not in this package"
    return
  fi
  openssl ts -reply -in "$1" -text >"$work/reply" 2>/dev/null
  seconds=''
  while IFS= read -r line; do
    case $line in
      'Time stamp: '*) read_time "${line#Time stamp: }" ;;
    esac
  done <"$work/reply"
  if [ -z "$seconds" ]; then
    fail "$1" 'not a time stamp'
    return
  fi
  # Checked as of its own time: the certificate of the authority may have expired since.
  if openssl ts -verify -data "$2" -in "$1" -CAfile data/keys/tsa-ca.pem -attime "$seconds" >"$work/verified" 2>/dev/null &&
    IFS= read -r line <"$work/verified" && [ "$line" = 'Verification: OK' ]; then
    ok "$1: $2 existed at $stamped"
  else
    fail "$1" "not a valid time stamp of $2"
  fi
}

# Reads `Nov 24 06:12:40.5 2026 GMT` into $seconds since 1970, as openssl needs it. $seconds is
# empty for any other text.
read_time() {
  stamped=$1 seconds=''
  # shellcheck disable=SC2086 # split into words
  set -- $1
  [ $# -eq 5 ] && [ "$5" = GMT ] || return 0
  month=1
  for name in Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec; do
    [ "$name" != "$1" ] || break
    month=$((month + 1))
  done
  [ "$month" -le 12 ] || return 0
  clock=${3%%.*} day=$2 year=$4
  hour=${clock%%:*} minute=${clock#*:}
  minute=${minute%:*} second=${clock##*:}
  is_number "$day" && is_number "$year" || return 0
  for name in hour minute second; do
    eval "value=\$$name"
    value=${value#0}
    is_number "${value:-0}" || return 0
    eval "$name=\${value:-0}"
  done
  # Counts years from March, so that the leap day is the last day of a year.
  [ "$month" -gt 2 ] || year=$((year - 1))
  days=$((365 * year + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 719469))
  seconds=$((days * 86400 + hour * 3600 + minute * 60 + second))
}

# --- Jobs: their entries in the custody record of the server, and whether the files match them.

check_jobs() {
  for job in data/jobs/*; do
    [ -d "$job" ] || continue
    for file in "$job"/*.json "$job"/*/custody.json; do
      case $file in
        */job.json) ;;
        *) [ ! -f "$file" ] || check_entry "$file" ;;
      esac
    done
    for upload in "$job"/upload-*; do
      [ ! -d "$upload" ] || check_upload "$upload"
    done
    [ ! -f "$job/program.manifest" ] || check_manifest "$job"
  done
}

# Checks an entry of the custody record, and the proof (c2sp.org/tlog-proof) that the record
# contained it when a checkpoint was made.
check_entry() {
  entry=$1 proof=${1%.json}.tlog-proof
  # The checksum is that of the line without its newline.
  { IFS= read -r line && ! IFS= read -r rest && [ -z "$rest" ]; } <"$entry" || line=''
  stated=${line##*,\"sum\":\"}
  if [ "$(printf '%s' "${line%,\"sum\":\"*}" | digest)\"}" != "$stated" ]; then
    fail "$entry" 'does not match its own checksum'
    return
  fi
  ok "$entry: matches its own checksum"
  if [ ! -f "$proof" ]; then
    note "$entry" 'no checkpoint covers it'
    return
  fi
  if ! read_proof <"$proof"; then
    fail "$proof" 'not a proof'
    return
  fi
  entry_line=$line
  if [ "$extra" != "$(printf '%s' "$line" | openssl base64 -A)" ]; then
    fail "$proof" "proves an entry other than $entry"
    return
  fi
  # Most proofs in a package are for one of its checkpoints.
  known=''
  for file in $checkpoints; do
    if cmp -s "$work/checkpoint" "$file"; then
      known=$file
      break
    fi
  done
  if [ "$known" ]; then
    read_checkpoint "$known"
  else
    check_checkpoint "$work/checkpoint" "$proof" || return
  fi
  if ! is_included "$entry_line" "$index" "$size" "$root"; then
    fail "$proof" "does not lead from the entry to the root of $origin"
    return
  fi
  ok "$proof: entry $index of $origin, which had $size entries"
  stamp=${known%.checkpoint}.tsr
  [ ! "$known" ] || [ ! -f "$stamp" ] || ok "$proof: stamped by $stamp"
}

# Reads a proof into extra, index, $work/path and $work/checkpoint.
read_proof() {
  : >"$work/path"
  IFS= read -r first && IFS= read -r extra && IFS= read -r index || return 1
  [ "$first" = 'c2sp.org/tlog-proof@v1' ] && [ "$extra" != "${extra#extra }" ] || return 1
  [ "$index" != "${index#index }" ] && is_number "${index#index }" || return 1
  extra=${extra#extra } index=${index#index }
  while IFS= read -r hash && [ -n "$hash" ]; do printf '%s\n' "$hash"; done >"$work/path"
  while IFS= read -r rest; do printf '%s\n' "$rest"; done >"$work/checkpoint"
}

check_upload() {
  for stream in out err env rdy; do
    [ -f "$1/$stream" ] || fail "$1" "no $stream"
  done
  [ -f "$1/out" ] && [ -f "$1/err" ] && [ -f "$1/env" ] && [ -f "$1/rdy" ] || return
  if [ -f "$1/custody.json" ]; then
    check_deposit "$1"
  else
    note "$1" 'no entry of the custody record confirms it'
  fi
  check_record "$1"
}

# Checks whether the files in $1 match the entry beside them, and belong to its job.
check_deposit() {
  folder=$1
  IFS= read -r line <"$folder/custody.json" || line=''
  IFS= read -r ready <"$folder/rdy" || ready=''
  # shellcheck disable=SC2046 # split into words: no name has blanks
  set -- $(sha256sum "$folder/out" "$folder/err" "$folder/env")
  digests="{\"out\":\"$1\",\"err\":\"$3\",\"env\":\"$5\"}"
  # shellcheck disable=SC2046
  set -- $(wc -c "$folder/out" "$folder/err" "$folder/env" "$folder/rdy")
  facts="\"bytes\":{\"out\":$1,\"err\":$3,\"env\":$5},\"sha256\":$digests"
  if [ "$7" -ne $((${#ready} + 1)) ] || [ "$ready" = "${ready#Jid=}" ]; then
    fail "$folder/rdy" 'not one line Jid=JOB'
  fi
  job_id=${ready#Jid=}
  case $job_id in
    # Escaped as in JSON.
    *[\\\"]*) job_id=$(printf '%s\n' "$job_id" | sed 's/[\\"]/\\&/g') ;;
  esac
  # In a deposit the facts of the stored streams are followed by a comma; those of the received
  # streams, before a hook of the server changed them, by a brace. An adopted upload is one of
  # several.
  case $line in
    *,\"event\":\"deposit\",*"$facts,"* | *,\"event\":\"adopt\",*"\"jobId\":\"$job_id\",$facts}"*)
      ok "$folder: out, err and env are what the custody record says"
      ;;
    *) fail "$folder" 'not what the custody record says' ;;
  esac
  case $line in
    *"\"jobId\":\"$job_id\""*) ok "$folder: of the job $job_id, as the custody record says" ;;
    *) fail "$folder" 'the custody record names another job id' ;;
  esac
}

# Checks the run record, which the client wrote: its hashes, and its signature if the client has a
# key.
check_record() {
  kind='' out='' err='' number=0 client='' record_job='' sizes='' plain='' signature='' more=''
  printf 'webjob-result/v1\n' >"$work/text"
  while IFS= read -r field; do
    number=$((number + 1))
    case $number:$field in
      4:ClientId=*) client=${field#ClientId=} ;;
      8:Jid=*) record_job=${field#Jid=} ;;
      18:HashType=*) kind=${field#HashType=} ;;
      19:StdOutHash=*) out=${field#StdOutHash=} ;;
      20:StdErrHash=*) err=${field#StdErrHash=} ;;
      *:StdOutBytes=* | *:StdOutSha256=* | *:StdErrBytes=* | *:StdErrSha256=*) sizes="$sizes $field" ;;
      *:PlainOutBytes=* | *:PlainOutSha256=* | *:PlainErrBytes=* | *:PlainErrSha256=*) plain="$plain $field" ;;
      *:ResultSignature=*)
        signature=${field#ResultSignature=}
        continue
        ;;
    esac
    more=$signature
    [ "$signature" ] || printf '%s\n' "$field" >>"$work/text"
  done <"$1/env"
  check_result "$1"
  check_plain "$1/out" PlainOut
  check_plain "$1/err" PlainErr
  case ${kind%"$return"} in
    [Mm][Dd]5) option=-md5 ;;
    [Ss][Hh][Aa]1) option=-sha1 ;;
    [Ss][Hh][Aa]256) option=-sha256 ;;
    [Ss][Hh][Aa]512) option=-sha512 ;;
    *)
      note "$1/env" 'states no hashes that can be checked'
      return
      ;;
  esac
  check_hash "$1/out" "${out%"$return"}"
  check_hash "$1/err" "${err%"$return"}"
}

# Checks the signature of the client that check_record has read, which covers the run record and by
# it out and err.
check_result() {
  keys=data/keys/clients
  if [ ! "$signature" ]; then
    [ ! "$sizes" ] || fail "$1/env" 'the signature of the client was removed'
    return
  fi
  signer=${signature%% *}
  check_signature "$signer" "${signature#* }"
  case $? in
    0) ;;
    1) fail "$1/env" "the signature of $signer is wrong" && return ;;
    *)
      if [ -d "$keys" ]; then
        fail "$1/env" "no signature with a key in $keys"
      else
        note "$1/env" "signed by the client $signer, whose key is not in this package"
      fi
      return
      ;;
  esac
  # shellcheck disable=SC2046 # split into words: no name has blanks
  set -- "$1" $(sha256sum "$1/out" "$1/err") $(wc -c "$1/out" "$1/err")
  IFS= read -r ready <"$1/rdy" || ready=''
  if [ "$more" ] || [ "$signer" != "$client" ]; then
    fail "$1/env" "the record is not as $signer signs it"
  elif [ "$sizes" != " StdOutBytes=$6 StdOutSha256=$2 StdErrBytes=$8 StdErrSha256=$4" ]; then
    fail "$1" "out and err are not what the client $signer signed"
  elif [ "$ready" != "Jid=$record_job" ]; then
    fail "$1" "the client $signer signed it as job $record_job"
  else
    ok "$1: out, err and env are what the client $signer signed"
  fi
}

# Checks the decrypted copy of the sealed stream $1, if the package has one. The fields of the run
# record with its size and digest begin with $2.
check_plain() {
  [ -f "$1.plain" ] || return 0
  # shellcheck disable=SC2046 # split into words: no name has blanks
  set -- "$1.plain" "$2" $(sha256sum "$1.plain") $(wc -c "$1.plain")
  case "$plain " in
    *" $2Bytes=$5 $2Sha256=$3 "*) ok "$1: as the client sealed it, according to the run record" ;;
    *) fail "$1" 'not as the client sealed it, according to the run record' ;;
  esac
}

check_hash() {
  case $2 in
    '' | NA) note "$1" 'the run record states no hash of it' && return ;;
    *[A-F]*) stated=$(printf '%s' "$2" | tr A-F a-f) ;;
    *) stated=$2 ;;
  esac
  found=$(openssl dgst "$option" -r <"$1" 2>/dev/null)
  if [ "${found%% *}" = "$stated" ]; then
    ok "$1: the $kind of the run record"
  else
    fail "$1" "not the $kind of the run record"
  fi
}

# Checks the manifest of a program, by which its authors signed the program for some clients and
# times.
check_manifest() {
  check_note "$1/program.manifest" "$1/program.manifest" manifests || return
  { IFS= read -r first && IFS= read -r second; } <"$work/text" || second=''
  if [ "$first" != webjob-manifest/v1 ]; then
    fail "$1/program.manifest" 'not the text of a manifest'
    return
  fi
  asked=$second
  for file in "$1"/upload-*/env; do
    [ -f "$file" ] || continue
    while IFS= read -r field; do
      case $field in
        GetRequest=*) asked="name ${field#GetRequest=}" && break ;;
      esac
    done <"$file"
    break
  done
  [ "$second" = "${asked%"$return"}" ] || fail "$1/program.manifest" 'not for the program that the client requested'
}

check_findings() {
  [ -f data/findings.txt ] || return 0
  while IFS= read -r line; do
    fail 'found when the package was made' "$line"
  done <data/findings.txt
}

# Prints `1 note` or `2 notes`.
count() {
  if [ "$1" -eq 1 ]; then
    printf '1 %s' "$2"
  else
    printf '%s %ss' "$1" "$2"
  fi
}

main() {
  case $0 in
    */*) own=${0%/*} ;;
    *) own=. ;;
  esac
  cd "${1:-$own}" || give_up 'no such directory'
  [ -d data ] || give_up 'this is not a package: there is no data'
  # Without one of these tools a check could pass although it checked nothing.
  for tool in cat cmp cut find grep mkdir od openssl rm sed sha256sum sort tail tr uniq wc; do
    command -v "$tool" >/dev/null 2>&1 || give_up "$tool is not installed"
  done
  openssl pkeyutl -help 2>&1 | grep -q -e -rawin || give_up 'openssl 3 is not installed'
  work=${TMPDIR:-/tmp}/verify.$$
  mkdir "$work" || give_up "cannot make $work"
  trap tidy EXIT
  trap 'exit 2' HUP INT TERM
  check_bag
  check_checkpoints
  check_jobs
  check_findings
  [ ! -f data/notes.txt ] || note data/notes.txt 'lists omissions and facts that are not proven'
  printf '\n'
  # shellcheck disable=SC2046 # no name in a list has blanks
  sha256sum $(grep '^data/keys/' "$work/found-data") VERIFY.sh tagmanifest-sha256.txt
  printf 'Compare these SHA-256 digests with those that the sender gave you separately.\n\n'
  if [ "$failed" -gt 0 ]; then
    printf 'FAILED: %s failed, %s passed, %s\n' "$(count "$failed" check)" "$passed" "$(count "$noted" note)"
    exit 1
  fi
  printf 'OK: %s passed, %s\n' "$(count "$passed" check)" "$(count "$noted" note)"
}

main "$@"
