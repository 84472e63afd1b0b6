# fish completion for webjob(1). Copy it to ~/.config/fish/completions, or to
# /usr/share/fish/vendor_completions.d.

# Succeeds where options of webjob may be, since everything after the name of the program belongs to
# the program.
function __webjob_before_program
    set -l takes_value no
    for word in (commandline -opc)[2..]
        if test $takes_value = yes
            set takes_value no
        else if contains -- $word -f --file -t --type
            set takes_value yes
        else if not string match -q -- '-*' $word
            return 1
        end
    end
end

function __webjob_hashes
    __webjob_before_program; and string match -q -r -- '^(-h|--hashsum)$' (commandline -opc)
end

# Completes files after the last comma of a list.
function __webjob_files
    set -l given (commandline -ct)
    set -l before (string match -r -- '^.*,' $given)
    set -l last (string replace -r -- '^.*,' '' $given)
    for path in (__fish_complete_path "$last")
        echo -- "$before$path"
    end
end

complete -c webjob -f
complete -c webjob -n 'not __webjob_before_program' -F
complete -c webjob -n __webjob_hashes -F
complete -c webjob -n __webjob_before_program -s e -l execute -d 'fetch a program, run it and upload its output'
complete -c webjob -n __webjob_before_program -l batch -d 'fetch and run the assignments of this client'
complete -c webjob -n __webjob_before_program -s g -l get-url -d 'write the content of a URL to stdout'
complete -c webjob -n __webjob_before_program -s h -l hashsum -d 'print the digest of a file, or of stdin'
complete -c webjob -n __webjob_before_program -l flush -d 'deliver the jobs in SpoolDirectory, or in a directory'
complete -c webjob -n __webjob_before_program -s f -l file -x -a '(__webjob_files)' -d 'settings file, or several separated by commas'
complete -c webjob -n __webjob_before_program -s t -l type -x -a 'MD5 SHA1 SHA256 SHA512' -d 'for --hashsum'
complete -c webjob -n __webjob_before_program -s v -l version -d 'print the version'
complete -c webjob -n __webjob_before_program -l help -d 'print this help'
