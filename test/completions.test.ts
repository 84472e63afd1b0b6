// The completions, asked in the real shells: what they offer is what webjob --help lists, and nothing behind the name of the program.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { DIGESTS } from '../client/modes.ts';
import { runWebjob } from './client-job.ts';

const COMPLETIONS = join(import.meta.dirname, '..', 'completions');
const TIME_LIMIT_MS = 20_000;

const folder = mkdtempSync(join(tmpdir(), 'webjob-completions-'));
for (const name of ['alpha.conf', 'alphabet.conf', 'beta.conf']) writeFileSync(join(folder, name), '');
mkdirSync(join(folder, 'scripts'));
after(() => rmSync(folder, { recursive: true }));

function runShell(command: string, args: string[], environment: Record<string, string> = {}): string[] {
  const env = { PATH: process.env.PATH, HOME: folder, TERM: 'dumb', COMPLETIONS, ...environment };
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, env, timeout: TIME_LIMIT_MS });
  assert.deepEqual({ status, stderr: stderr.toString() }, { status: 0, stderr: '' }, `${command} ${args.at(-1)}`);
  return stdout.toString().split('\n').filter(Boolean);
}

/** The function that bash was told to call, called as bash does; `compopt` is one of ours, for only Tab may call bash's. */
const BASH = `
source "$COMPLETIONS/webjob.bash"
compopt() { [[ $* == '-o default' ]] && default=yes; }
read -ra COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
[[ $(complete -p webjob) =~ -F\\ ([^ ]+) ]]
"\${BASH_REMATCH[1]}" webjob "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD - 1]}"
if [[ $default == yes ]]; then compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"; else printf '%s\\n' "\${COMPREPLY[@]}"; fi
exit 0
`;

/** Tab in a zsh on a terminal of its own; it writes down what it would offer. */
const ZSH_INSIDE = `
fpath=($COMPLETIONS $fpath)
autoload -Uz compinit
compinit -u -D
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

const SHELLS: Record<string, (line: string) => string[]> = {
  bash: (line) => runShell('bash', ['--norc', '-c', BASH, 'bash', line]),
  zsh: (line) => {
    const [inside, offered] = [join(folder, 'scripts', 'inside.zsh'), join(folder, 'scripts', 'offered')];
    writeFileSync(inside, ZSH_INSIDE);
    return runShell('zsh', ['-f', '-c', ZSH, 'zsh', line], { INSIDE: inside, OFFERED: offered });
  },
  fish: (line) => {
    const said = runShell('fish', ['--no-config', '-c', `source $COMPLETIONS/webjob.fish; complete -C '${line}'`]);
    return said.map((offer) => offer.split('\t')[0] ?? '');
  },
};

for (const [shell, ask] of Object.entries(SHELLS)) {
  const skip = spawnSync(shell, ['--version']).error === undefined ? false : `${shell} is not installed`;
  describe(`completion in ${shell}`, { skip }, () => {
    let options: string[];
    before(async () => {
      const { stdout } = await runWebjob(['--help']);
      options = [...stdout.matchAll(/^ {2}(?:(-[a-z]), )?(--[a-z-]+) /gm)].flatMap(([, short, long = '']) =>
        short === undefined ? [long] : [short, long],
      );
      assert.ok(options.length >= 10, stdout);
    });
    const offers = (line: string, expected: readonly string[]): void =>
      assert.deepEqual(ask(line).sort(), [...expected].sort(), line);

    it('offers the options of webjob --help, and no other', () => offers('webjob -', options));

    it('offers long options by their start', () => offers('webjob --fl', ['--flush']));

    it('offers the options that go with a mode', () => {
      const offered = ask('webjob --execute -');
      for (const option of ['-f', '--file']) assert.ok(offered.includes(option), `${offered}`);
    });

    it('offers the digests for --type', () => {
      offers('webjob --hashsum --type ', DIGESTS);
      offers('webjob -h -t SHA', ['SHA1', 'SHA256', 'SHA512']);
    });

    it('offers files for --file, and again behind a comma', () => {
      offers('webjob --execute --file al', ['alpha.conf', 'alphabet.conf']);
      offers('webjob -e -f alpha.conf,b', ['alpha.conf,beta.conf']);
    });

    it('offers files for --hashsum', () => offers('webjob --hashsum --type MD5 be', ['beta.conf']));

    it('leaves the name of the program free', () => offers('webjob -e -f alpha.conf al', []));

    it('offers files and no options behind the name of the program', () => {
      offers('webjob -e -f alpha.conf host.sh al', ['alpha.conf', 'alphabet.conf']);
      offers('webjob -e -f alpha.conf host.sh -', []);
    });
  });
}

describe('the completions', () => {
  it('describe every option as webjob --help does', async () => {
    const { stdout } = await runWebjob(['--help']);
    const texts = [...stdout.matchAll(/^ {2}(?:-[a-z], )?--[a-z-]+(?: <\w+>)? +(.+)$/gm)].map(([, text = '']) =>
      text.replace(/:.*/, ''),
    );
    assert.ok(texts.length >= 8);
    for (const name of ['_webjob', 'webjob.fish']) {
      const file = readFileSync(join(COMPLETIONS, name), 'utf8');
      assert.deepEqual(
        texts.filter((text) => !file.includes(text)),
        [],
        name,
      );
    }
  });
});
