// README.txt of a package, for its recipient, who has neither WebJob nor its documentation.
import { countOf } from '../../cli/counts.ts';
import type { PackageInfo } from './info.ts';

/** The contents of a package that its README.txt depends on. */
export interface Contents {
  jobs: number;
  findings: number;
  notes: number;
  hasCheckpoints: boolean;
  hasStamps: boolean;
  /** Whether sealed streams are included decrypted too. */
  isOpened: boolean;
}

/** Formats the text in lines of at most 78 columns. */
export function formatReadme(
  { caseNumber, examiner, description }: PackageInfo,
  { jobs, findings, notes, hasCheckpoints, hasStamps, isOpened }: Contents,
  { madeAt, version }: { madeAt: Date; version: string },
): string {
  const about = [
    `Made ${madeAt.toISOString()} by ${examiner} with webjobctl ${version}.`,
    caseNumber === undefined ? undefined : `Case: ${caseNumber}`,
    description === undefined ? undefined : `Description: ${description}`,
    `It contains ${countOf(jobs, 'job')}.`,
    findings === 0
      ? undefined
      : `SOME OF IT IS NOT AS RECEIVED: data/findings.txt lists ${countOf(findings, 'finding')}.`,
    notes === 0 ? undefined : 'data/notes.txt lists omissions and facts that are not proven.',
    hasCheckpoints ? undefined : 'No signed checkpoint covers it: only its lists confirm the custody record.',
    hasStamps ? undefined : 'It contains no time stamp of an independent authority.',
    isOpened ? 'Sealed streams were opened for it: beside out and err are out.plain and err.plain.' : undefined,
  ];
  return `EVIDENCE FROM A WEBJOB SITE

${about.filter((line) => line !== undefined).join('\n')}

WebJob runs a program from a central server on another machine, the client, and
keeps what it printed. Each such run is a job. This directory is a BagIt bag
(RFC 8493): the evidence is below data/, and any BagIt tool can check the lists.


CHECK IT

    sh VERIFY.sh

checks everything below, prints OK, FAILED or NOTE line by line, and exits with
0 only if nothing failed. It is a shell script that can be read, and needs
sha256sum and openssl 3. A NOTE names a fact that this package cannot prove.

At its end it prints the SHA-256 of tagmanifest-sha256.txt, of itself, and of
each key. Compare these with those that the sender gave you separately, such as
by telephone: anyone who can change every file in this directory can also make
new lists.


WHAT EACH FILE IS

    index.html, pages/         the jobs, to be read and printed
    bag-info.txt               case, examiner, description
    bagit.txt                  marks this directory as a BagIt bag
    manifest-sha256.txt        the SHA-256 of every file below data/
    tagmanifest-sha256.txt     the SHA-256 of every other file
    data/jobs/N-ID/            one job:
      job.json                 the server's data about it
      log.txt                  its requests, as the server logged them
      upload-1/                what the client sent; if more than once, upload-2/
        out, err               what the program wrote to stdout and stderr
        out.plain, err.plain   the same before the client sealed it, where the sender
                               of this package opened it
        env                    the record of the run, which the client wrote
        rdy                    the job id under which the server received it
        custody.json           the entry of the server's custody record
        custody.tlog-proof     the proof that the entry was in the record
      incomplete-1/            the part of an upload that arrived before it broke off
      record-1.json            other entries of the custody record
      program.manifest         what the program's authors signed
    data/checkpoints/          the state of the custody record, signed (.checkpoint),
                               and time stamps of it (.tsr)
    data/keys/                 the public keys, each named by its key id:
      checkpoints/             of those who sign checkpoints
      witnesses/               of witnesses of the checkpoints, and how many of them
                               must have cosigned each (policy)
      manifests/               of those who sign programs
      clients/                 of clients that sign what they send
      tsa-ca.pem               the certificate of the time stamps' CA
    data/findings.txt          what was not as it was received, if anything
    data/notes.txt             what was left out or is not proven, if anything

Not every package has all of them.


WHAT IT PROVES

The server wrote an entry of each upload into its custody record before it
answered the client: the SHA-256 of out, err and env, when they arrived, their
sender and its address. The entries are the leaves of a Merkle tree (RFC 6962). A
checkpoint is the root of that tree, signed with a key that is not kept on the
server. The proof leads from the entry to the root: nobody can have changed the
entry, nor the files, after the checkpoint was made. A time stamp (RFC 3161) by
an independent authority certifies when that was.

The hashes in env are the client's own statement. If env ends with a line
ResultSignature, the client signed that statement, with the SHA-256 of out and
err in it, before the server saw any of it: then the server cannot have changed
or made up the result. Files that begin with "age-encryption.org" are sealed to
an examiner; the program age opens them. Where out.plain is beside such a file,
the line PlainOutSha256 of env, which the client signed as well, is its SHA-256.
Only the examiner can show that it is the content of out: age -d opens out.

If data/keys/witnesses/policy exists, parties other than the server's owner have
seen each checkpoint, and have signed that the record only ever grew: the server
cannot show one record to you and another to them. Their signatures are the
further lines of a checkpoint (c2sp.org/tlog-cosignature, c2sp.org/tlog-policy).


CHECK IT BY HAND

The lists:

    sha256sum -c tagmanifest-sha256.txt
    sha256sum -c manifest-sha256.txt

That the files are those of the entry: compare the output with "sha256" in
custody.json.

    sha256sum data/jobs/N-ID/upload-1/*

The signature of a checkpoint (ID is the key id, in the name of the key's file):

    f=data/checkpoints/NAME.checkpoint
    head -n 3 $f > text
    sed -n 5p $f | cut -d ' ' -f 3 | openssl base64 -d -A | tail -c +5 > sig
    openssl pkeyutl -verify -pubin -inkey data/keys/checkpoints/ID.pem \\
        -rawin -in text -sigfile sig

The signature of a witness, line N of a checkpoint (the text as above):

    sed -n Np $f | cut -d ' ' -f 3 | openssl base64 -d -A > cosignature
    time=$(od -An -tx1 -j4 -N8 cosignature | tr -d ' ')
    { printf 'cosignature/v1\\ntime %d\\n' 0x$time; cat text; } > cosigned
    tail -c +13 cosignature > sig
    openssl pkeyutl -verify -pubin -inkey data/keys/witnesses/ID.pem \\
        -rawin -in cosigned -sigfile sig

The time stamp of a checkpoint (if the authority's certificate has expired, add
-attime and the time of the stamp in seconds since 1970):

    openssl ts -reply -in data/checkpoints/NAME.tsr -text
    openssl ts -verify -data data/checkpoints/NAME.checkpoint \\
        -in data/checkpoints/NAME.tsr -CAfile data/keys/tsa-ca.pem

The path from an entry to a root is the algorithm of RFC 9162, section 2.1.3.2;
VERIFY.sh has it in twenty lines (is_included). Any tool for proofs of
c2sp.org/tlog-proof checks it as well. The line "extra" of a proof is the entry
in base64; the checkpoint follows the first blank line.
`;
}
