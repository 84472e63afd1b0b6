// Server certificates that a client has to judge: chains of any length, with any names, made with
// openssl in a directory.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A key and its certificate, with those of the CAs between it and the root. */
export interface Issued {
  key: string;
  /** In the order in which a server sends them. */
  cert: string;
  /** The name of its files, which can sign further certificates. */
  name: string;
  isRoot: boolean;
}

export interface Wish {
  subject: string;
  /** Self-signed when undefined. */
  issuer?: Issued;
  /** `DNS:localhost,IP:127.0.0.1`. */
  names?: string;
  isCa?: boolean;
  /** An RSA key of this size, by default a P-256 key. */
  rsaBits?: number;
  digest?: 'sha1' | 'sha256';
}

const P256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
let count = 0;

export function issue(folder: string, { subject, issuer, names, isCa = false, rsaBits, digest }: Wish): Issued {
  count += 1;
  const name = `issued${count}`;
  const files = ['-keyout', `${name}.key`, '-out', `${name}.csr`];
  const kind = rsaBits === undefined ? P256 : ['-newkey', `rsa:${rsaBits}`, '-nodes'];
  runOpenssl(folder, ['req', '-new', ...kind, '-utf8', '-subj', subject, ...files]);
  const extensions = [
    `basicConstraints=critical,CA:${isCa ? 'TRUE' : 'FALSE'}`,
    ...(names ? [`subjectAltName=${names}`] : []),
  ];
  writeFileSync(join(folder, `${name}.cnf`), `${extensions.join('\n')}\n`);
  const signer = issuer
    ? ['-CA', `${issuer.name}.crt`, '-CAkey', `${issuer.name}.key`, '-CAcreateserial']
    : ['-signkey', `${name}.key`];
  const request = ['-req', '-in', `${name}.csr`, '-extfile', `${name}.cnf`, '-days', '2', '-out', `${name}.crt`];
  runOpenssl(folder, ['x509', ...request, ...signer, ...(digest ? [`-${digest}`] : [])]);
  const read = (file: string): string => readFileSync(join(folder, file), 'utf8');
  // A root is not sent, because clients that trust it have it.
  const above = issuer?.isRoot === false ? issuer.cert : '';
  return { name, key: read(`${name}.key`), cert: read(`${name}.crt`) + above, isRoot: issuer === undefined };
}

/** The same key with a pass phrase. */
export function encryptKey(folder: string, { name }: Issued, passPhrase: string): string {
  const target = join(folder, `${name}.encrypted`);
  const from = ['-in', `${name}.key`, '-out', target];
  runOpenssl(folder, ['pkcs8', '-topk8', '-v2', 'aes-256-cbc', '-passout', 'env:PASS_PHRASE', ...from], {
    PASS_PHRASE: passPhrase,
  });
  return target;
}

function runOpenssl(folder: string, words: string[], environment: Record<string, string> = {}): void {
  execFileSync('openssl', words, { cwd: folder, stdio: 'pipe', env: { ...process.env, ...environment } });
}
