// Tab in the real shells: what a completion offers for a line.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const TIME_LIMIT_MS = 60_000;

function runShell(command: string, args: string[], folder: string, environment: Record<string, string>): string[] {
  const env = { PATH: process.env.PATH, HOME: folder, TERM: 'dumb', ...environment };
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, env, timeout: TIME_LIMIT_MS });
  assert.deepEqual({ status, stderr: stderr.toString() }, { status: 0, stderr: '' }, `${command} ${args.at(-1)}`);
  return stdout.toString().split('\n').filter(Boolean);
}

/**
 * Calls the completion function as bash does; `compopt` is a stub, because bash's own works only
 * during completion.
 */
const BASH = `
source "$COMPLETIONS/$PROGRAM.bash"
compopt() { [[ $* == '-o default' ]] && default=yes; }
read -ra COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
[[ $(complete -p $PROGRAM) =~ -F\\ ([^ ]+) ]]
"\${BASH_REMATCH[1]}" $PROGRAM "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD - 1]}"
if [[ $default == yes ]]; then compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"; else printf '%s\\n' "\${COMPREPLY[@]}"; fi
exit 0
`;

/** Tab in a zsh on a terminal of its own, which writes down what it would offer. */
const ZSH_INSIDE = `
fpath=($COMPLETIONS $fpath)
autoload -Uz compinit
compinit -u -C -d $INSIDE.dump
compadd() {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  local -a hits
  builtin compadd -A hits "$@"
  (( $#hits )) && print -rl -- $IPREFIX\${^hits} >> $OFFERED
  builtin compadd "$@"
}
_offer() { _main_complete; print -r -- --end-- >> $OFFERED; compstate[insert]= compstate[list]= }
zle -C offer complete-word _offer
bindkey '^I' offer
print -r -- --ready-- >> $OFFERED
`;
const ZSH = `
zmodload zsh/zpty
: > $OFFERED
await() { until [[ "$(<$OFFERED)" == *$1* ]]; do zpty -r -t inside said; sleep 0.01; done }
zpty inside zsh -f -i
zpty -w inside 'source $INSIDE'
await --ready--
zpty -n -w inside "$1"$'\\t'
await --end--
zpty -d inside
print -r -- "\${\${"$(<$OFFERED)"#--ready--}%--end--}"
`;

export interface Shell {
  /** What is offered for a line when Tab is pressed at its end. */
  ask(line: string): string[];
  /** Why it cannot be asked. */
  skip: string | false;
}

/**
 * The shells, with the completions of a program in a directory: `_NAME`, `NAME.bash`, `NAME.fish`.
 * They run in another directory.
 */
export function openShells(program: string, completions: string, folder: string): Record<string, Shell> {
  const environment = { COMPLETIONS: completions, PROGRAM: program };
  const shells: Record<string, (line: string) => string[]> = {
    bash: (line) => runShell('bash', ['--norc', '-c', BASH, 'bash', line], folder, environment),
    zsh: (line) => {
      const [inside, offered] = [join(folder, 'scripts', 'inside.zsh'), join(folder, 'scripts', 'offered')];
      writeFileSync(inside, ZSH_INSIDE);
      return runShell('zsh', ['-f', '-c', ZSH, 'zsh', line], folder, {
        ...environment,
        INSIDE: inside,
        OFFERED: offered,
      });
    },
    fish: (line) => {
      const script = `source $COMPLETIONS/$PROGRAM.fish; complete -C '${line}'`;
      const said = runShell('fish', ['--no-config', '-c', script], folder, environment);
      return said.map((offer) => offer.split('\t')[0] ?? '');
    },
  };
  return Object.fromEntries(
    Object.entries(shells).map(([name, ask]) => {
      const isThere = spawnSync(name, ['--version']).error === undefined;
      return [name, { ask, skip: !isThere && `${name} is not installed` }];
    }),
  );
}
