// The pass phrase of a private key: from webjob.conf, from a file, or from the terminal. Never from the command line, where ps shows it.
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Failure } from './failure.ts';
import type { ClientSettings } from './settings.ts';

/** The pass phrase for a PEM key; undefined for a key that needs none. Throws Failure `settings`. */
export async function askPassPhrase(settings: ClientSettings, key: Buffer): Promise<string | undefined> {
  if (settings.sslPassPhrase !== '') return settings.sslPassPhrase;
  if (settings.sslPassPhraseFile !== '') return readPassPhrase(settings.sslPassPhraseFile);
  if (!needsPassPhrase(key)) return undefined;
  if (!process.stdin.isTTY)
    throw new Failure(
      'settings',
      'SSLPrivateKeyFile needs a pass phrase',
      'set SSLPassPhraseFile, or run webjob on a terminal',
    );
  return await prompt(`Pass phrase for ${settings.sslPrivateKeyFile}: `);
}

function readPassPhrase(path: string): string {
  try {
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw new Failure(
      'settings',
      `SSLPassPhraseFile: ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`,
    );
  }
}

function needsPassPhrase(key: Buffer): boolean {
  try {
    createPrivateKey(key);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ERR_MISSING_PASSPHRASE';
  }
}

/** Reads a line from the terminal without showing it. */
async function prompt(question: string): Promise<string> {
  const { stdin, stderr } = process;
  stderr.write(question);
  stdin.setRawMode(true);
  try {
    let line = '';
    for await (const chunk of stdin as AsyncIterable<Buffer>) {
      for (const character of chunk.toString()) {
        if (character === '\r' || character === '\n') return line;
        if (character === '\x03' || character === '\x04') throw new Failure('settings', 'no pass phrase was given');
        line = character === '\x7f' || character === '\b' ? line.slice(0, -1) : line + character;
      }
    }
    throw new Failure('settings', 'no pass phrase was given');
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write('\n');
  }
}
