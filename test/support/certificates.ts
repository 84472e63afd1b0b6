// Certificates for tests, made with the very commands of docs/guide/authentication.md.
import { execFileSync } from 'node:child_process';
import { createPrivateKey, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readBlock } from './authentication-guide.ts';

/** A client's credentials, both in PEM. */
export interface Identity {
  cert: string;
  key: string;
}

/** Options beyond what the guide explains. */
export interface Oddity {
  /** The subject for openssl, instead of `/CN=client1`. */
  subject?: string;
  /** `20200101000000Z`. */
  from?: string;
  to?: string;
  purpose?: 'client' | 'server_only';
}

/**
 * Additions to the guide's ca.cnf: a subject may lack a CN, and a certificate may be for servers.
 */
const MORE_SECTIONS = `
[anything]
commonName = optional
organizationName = optional

[server_only]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
`;

export class Authority {
  readonly folder: string;
  readonly #issued: Identity;
  #count = 0;

  /** Makes the guide's CA and the guide's client1 in an empty directory. */
  constructor(folder: string, name = 'WebJob clients') {
    this.folder = folder;
    writeFileSync(join(folder, 'ca.cnf'), readBlock('ini ca.cnf'));
    runShell(readBlock('sh authority').replace('WebJob clients', name), folder);
    for (const step of ['request', 'sign']) runShell(readBlock(`sh ${step}`), folder);
    this.#issued = { cert: this.read('client1.crt'), key: this.read('client1.key') };
    writeFileSync(join(folder, 'odd.cnf'), readBlock('ini ca.cnf') + MORE_SECTIONS);
  }

  /** client1's certificate, as the guide makes it. */
  get client1(): Identity {
    return this.#issued;
  }

  read(name: string): string {
    return readFileSync(join(this.folder, name), 'utf8');
  }

  /** Another certificate for client1's key. */
  issue({ subject = '/CN=client1', from, to, purpose = 'client' }: Oddity): Identity {
    this.#count += 1;
    const out = `odd${this.#count}.crt`;
    const dates = [...(from ? ['-startdate', from] : []), ...(to ? ['-enddate', to] : [])];
    const names = ['-policy', 'anything', '-utf8', '-subj', subject, '-extensions', purpose];
    const files = ['-in', 'client1.csr', '-out', out];
    runOpenssl(this.folder, ['ca', '-config', 'odd.cnf', '-batch', '-notext', ...names, ...dates, ...files]);
    return { cert: this.read(out), key: this.#issued.key };
  }

  /**
   * A certificate of this CA whose CN contains any bytes, which openssl's command line cannot
   * express.
   */
  issueWithName(name: string): Identity {
    const placeholder = '_'.repeat(name.length);
    const bytes = toDer(this.issue({ subject: `/CN=${placeholder}` }).cert);
    const at = bytes.indexOf(placeholder);
    bytes.write(name, at, 'latin1');
    return { cert: this.#signAnew(bytes), key: this.#issued.key };
  }

  /** What client1 would sign if its key were a CA's; sent with the chain up to this CA. */
  issueBelowClient1(): Identity {
    const files = ['-in', 'below.csr', '-out', 'below.crt'];
    const request = ['-new', '-key', 'client1.key', '-subj', '/CN=client2', '-out', 'below.csr'];
    runOpenssl(this.folder, ['req', ...request]);
    const signer = ['-CA', 'client1.crt', '-CAkey', 'client1.key', '-CAcreateserial', '-days', '2'];
    runOpenssl(this.folder, ['x509', '-req', ...signer, ...files]);
    return { cert: this.read('below.crt') + this.#issued.cert, key: this.#issued.key };
  }

  /** Revokes client1's certificate as in the guide; webjob-ca.crl is then in the directory. */
  revokeClient1(): void {
    runShell(readBlock('sh revoke'), this.folder);
  }

  /** A revocation list that was only valid on a day in the past. */
  makeStaleList(path: string): void {
    const dates = ['-crl_lastupdate', '20200101000000Z', '-crl_nextupdate', '20200102000000Z'];
    runOpenssl(this.folder, ['ca', '-config', 'ca.cnf', '-gencrl', ...dates, '-out', path]);
  }

  /**
   * DER is SEQUENCE { what is signed, algorithm, BIT STRING as long as an RSA key }, so both can be
   * replaced in place.
   */
  #signAnew(certificate: Buffer): string {
    const key = createPrivateKey(this.read('ca.key'));
    const signatureLength = (key.asymmetricKeyDetails?.modulusLength ?? 0) / 8;
    const signed = certificate.subarray(4, 8 + certificate.readUInt16BE(6));
    sign('sha256', signed, key).copy(certificate, certificate.length - signatureLength);
    const lines = certificate.toString('base64').replace(/.{1,64}/g, '$&\n');
    return `-----BEGIN CERTIFICATE-----\n${lines}-----END CERTIFICATE-----\n`;
  }
}

/**
 * The server's certificate as in the guide: webjob-server.crt and webjob-server.key in the
 * directory.
 */
export function makeServerCertificate(folder: string): void {
  runShell(readBlock('sh server'), folder);
}

function runShell(commands: string, folder: string): void {
  execFileSync('sh', ['-e', '-c', commands], { cwd: folder, stdio: 'pipe' });
}

function runOpenssl(folder: string, words: string[]): void {
  execFileSync('openssl', words, { cwd: folder, stdio: 'pipe' });
}

function toDer(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----.*-----|\s/g, ''), 'base64');
}
