// The pass phrase of a private key, from webjob.conf, a file or the terminal, but never from the
// command line, where ps would show it.
import { readFileSync } from 'node:fs';
import { Failure } from './failure.ts';
import type { ClientSettings } from './settings.ts';

/**
 * Returns the pass phrase of a PEM key, one character per byte; undefined for an unencrypted key.
 * Throws Failure `settings`.
 */
export async function askPassPhrase(settings: ClientSettings, key: Buffer): Promise<string | undefined> {
  if (settings.sslPassPhrase !== '') return settings.sslPassPhrase;
  if (settings.sslPassPhraseFile !== '') return readPassPhrase(settings.sslPassPhraseFile);
  if (!needsPassPhrase(key)) return undefined;
  if (!process.stdin.isTTY)
    throw new Failure(
      'settings',
      'SSLPrivateKeyFile requires a pass phrase',
      'set SSLPassPhraseFile, or run webjob on a terminal',
    );
  return await promptOnce(settings.sslPrivateKeyFile);
}

function readPassPhrase(path: string): string {
  try {
    return readFileSync(path, 'latin1')
      .replace(/^\xef\xbb\xbf/, '')
      .replace(/\r?\n$/, '');
  } catch (error) {
    throw new Failure(
      'settings',
      `SSLPassPhraseFile: ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`,
    );
  }
}

/** Whether a key is encrypted; PKCS#8 and OpenSSL's older PEM format mark encrypted keys alike. */
function needsPassPhrase(key: Buffer): boolean {
  return /^(?:-----BEGIN ENCRYPTED |Proc-Type: 4,ENCRYPTED)/m.test(key.toString('latin1'));
}

/** Typed pass phrases by key, because PUT needs the same one as GET. */
const answers = new Map<string, string>();

async function promptOnce(file: string): Promise<string> {
  const answer = answers.get(file) ?? (await prompt(`Pass phrase for ${file}: `));
  answers.set(file, answer);
  return answer;
}

/** The last character, which in UTF-8 may have several bytes. */
const LAST_CHARACTER = /(?:[\xc0-\xf7][\x80-\xbf]+|.)$/s;

/**
 * Reads a line from the terminal without echo. The terminal stays open, because the program may
 * read from it next.
 */
async function prompt(question: string): Promise<string> {
  const { stdin, stderr } = process;
  // Raw mode comes before the prompt: characters typed immediately would otherwise be shown.
  stdin.setRawMode(true).setEncoding('latin1');
  stderr.write(question);
  let line = '';
  try {
    return await new Promise<string>((resolve, reject) => {
      const giveUp = (): void => reject(new Failure('settings', 'no pass phrase was given'));
      stdin.on('end', giveUp).on('data', (text: string) => {
        for (const character of text) {
          if (character === '\r' || character === '\n') return resolve(line);
          if (character === '\x03' || character === '\x04') return giveUp();
          line = /[\x7f\b]/.test(character) ? line.replace(LAST_CHARACTER, '') : line + character;
        }
      });
    });
  } finally {
    stdin.removeAllListeners('data').removeAllListeners('end');
    stdin.setRawMode(false).pause();
    stderr.write('\n');
  }
}
