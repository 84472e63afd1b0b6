# bash completion for webjob(1), for bash 4 and later. Source it from ~/.bashrc, or copy it to
# /usr/share/bash-completion/completions/webjob.

# Sets COMPREPLY. Everything after the name of the program belongs to the program, so there bash
# completes files.
_webjob() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} mode='' word i
  COMPREPLY=()
  case $previous in
    -f | --file)
      _webjob_files "$current"
      return
      ;;
    --flush)
      # An option may follow as well.
      if [[ $current != -* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        return
      fi
      ;;
    -t | --type)
      mapfile -t COMPREPLY < <(compgen -W 'MD5 SHA1 SHA256 SHA512' -- "${current^^}")
      return
      ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
      -f | --file | -t | --type) ((i++)) ;;
      -e | --execute) mode=execute ;;
      -h | --hashsum) mode=hashsum ;;
      -*) ;;
      *)
        compopt -o default 2>/dev/null
        return
        ;;
    esac
  done
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '
      -e --execute --batch -g --get-url -h --hashsum --flush
      -f --file -t --type -v --version --help' -- "$current")
  elif [[ $mode == hashsum ]]; then
    _webjob_files "$current"
  fi
}

# Completes files after the last comma of a list.
_webjob_files() {
  local before='' i
  [[ $1 == *,* ]] && before=${1%,*},
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "${1##*,}")
  for i in "${!COMPREPLY[@]}"; do
    COMPREPLY[i]=$before${COMPREPLY[i]}
  done
}

complete -F _webjob webjob
