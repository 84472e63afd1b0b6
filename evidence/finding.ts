// What webjobctl verify can find. The names are stable: scripts ask for them.

export type FindingKind =
  /** A `.rdy` stands, and a stream of the group does not. */
  | 'stream-missing'
  /** Streams without `.rdy`, and nobody at work on them. */
  | 'incomplete'
  /** A lock that nobody holds any more. */
  | 'lock-abandoned'
  /** The `.rdy` is no line with a job id, or not with the one that it was announced under. */
  | 'ready-wrong'
  /** A stream is not what the record of the run says of it. */
  | 'hash-wrong'
  /** The client has a result key, and the upload came without a signature. */
  | 'signature-missing'
  /** The signature does not hold, or a stream is not what was signed. */
  | 'signature-wrong'
  /** Signed with a key that the site does not have of this client, or that had ended. */
  | 'signature-key'
  /** Signed, but for another client, job or command than it is kept as. */
  | 'signature-moved'
  /** A client's journal has a run that the server acknowledged, and it is not there; or other bytes are. */
  | 'journal-missing'
  | 'journal-changed'
  /** The journal is not as the client wrote it. */
  | 'journal-broken'
  /** A stream has not the size, or the SHA-256, of the custody record. */
  | 'size-changed'
  | 'digest-changed'
  /** A group that came after the custody record began and is not in it. */
  | 'unrecorded'
  /** A group that came before the custody record began: nothing but the run record vouches for it, until it is adopted. */
  | 'older'
  /** It came under a name that was taken by other bytes, which are there too, or were replaced. */
  | 'differing'
  | 'replaced'
  /** The custody record has it, nobody pruned or packed it, and it is not there. */
  | 'group-missing'
  /** webjobctl made a pack, and neither removed nor unpacked it, and a file of it is not there, or another. */
  | 'pack-missing'
  | 'pack-changed'
  /** Something that belongs to no group; a link, or what is neither file nor folder. */
  | 'unexpected'
  | 'link'
  /** Others than its owner may write to it; it belongs to neither the locker's owner nor root. */
  | 'mode'
  | 'owner'
  | 'unreadable'
  /** EnableCustody=Y, and there is no custody record; or a segment of it is not there. */
  | 'custody-missing'
  /** A record of another writer is in it, or it is the file of another. */
  | 'custody-foreign'
  /** What is wrong with a line of it: ChainFault of webjob-locker. */
  | 'custody-edited'
  | 'custody-broken'
  | 'custody-torn'
  /** The line of a checkpoint is none, or its signature is not the key's. */
  | 'checkpoint-invalid'
  /** The custody record is shorter than it was at a checkpoint; in what it held then something was changed. */
  | 'checkpoint-truncated'
  | 'checkpoint-changed'
  /** Of a package alone: a signature of the program's manifest is wrong. */
  | 'manifest-wrong'
  /** The same, since root looked at it last. */
  | 'witness-truncated'
  | 'witness-changed';

export interface Finding {
  kind: FindingKind;
  /** The group or file, below the locker; the name of a custody record. */
  place: string;
  detail: string;
}
