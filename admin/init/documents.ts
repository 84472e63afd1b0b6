// Man pages and completions, and the directories in which man and the shells look for them.
import { basename, dirname } from 'node:path';
import type { Places } from './places.ts';
import type { Wish } from './plan.ts';

/** Texts by their paths in the project. */
export type Documents = Readonly<Record<string, string>>;

/** The completion script of webjobctl for each shell. */
export type Completions = Readonly<Record<'bash' | 'zsh' | 'fish', string>>;

export function planDocuments(places: Places, documents: Documents, webjobctl: Completions): Wish[] {
  const { shareDirectory, fishDirectory } = places;
  const pages = Object.keys(documents).filter((file) => file.startsWith('docs/man/'));
  const ofClient = (name: string): string => documents[`completions/${name}`] ?? '';
  const [bash, zsh] = ['bash-completion/completions', 'zsh/site-functions'].map((name) => `${shareDirectory}/${name}`);
  const files: [path: string, content: string][] = [
    ...pages.map((file): [string, string] => {
      return [`${shareDirectory}/man/man${file.slice(-1)}/${basename(file)}`, documents[file] ?? ''];
    }),
    ...[
      [`${bash}/webjob`, ofClient('webjob.bash')] as [string, string],
      [`${bash}/webjobctl`, webjobctl.bash] as [string, string],
      [`${zsh}/_webjob`, ofClient('_webjob')] as [string, string],
      [`${zsh}/_webjobctl`, webjobctl.zsh] as [string, string],
      [`${fishDirectory}/webjob.fish`, ofClient('webjob.fish')] as [string, string],
      [`${fishDirectory}/webjobctl.fish`, webjobctl.fish] as [string, string],
    ],
  ];
  const common = { owner: 'root', group: 'root' } as const;
  const folders = new Set([shareDirectory, ...files.flatMap(([path]) => [dirname(dirname(path)), dirname(path)])]);
  return [
    ...[...folders].map((path): Wish => ({ ...common, kind: 'folder', path, mode: 0o755, isSystems: true })),
    ...files.map(([path, content]): Wish => ({ ...common, kind: 'file', path, mode: 0o644, content })),
  ];
}
