// The findings of webjobctl verify. Their names are stable, because scripts rely on them.

export type FindingKind =
  /** There is a `.rdy`, but a stream of the upload is missing. */
  | 'stream-missing'
  /** There are streams without a `.rdy`, and no process is writing them. */
  | 'incomplete'
  /** A lock that no process holds. */
  | 'lock-abandoned'
  /** The `.rdy` has no line with a job id, or another job id than was recorded. */
  | 'ready-wrong'
  /** A stream does not match the run record. */
  | 'hash-wrong'
  /** The client has a result key, but the upload is not signed. */
  | 'signature-missing'
  /** The signature does not verify, or a stream is not the one that was signed. */
  | 'signature-wrong'
  /**
   * The upload is signed with a key that the site does not have for this client, or that had
   * already expired.
   */
  | 'signature-key'
  /** The upload is signed for a client, job or command other than the one it is stored under. */
  | 'signature-moved'
  /**
   * The client's journal has a run that the server acknowledged, but the upload is missing or
   * differs.
   */
  | 'journal-missing'
  | 'journal-changed'
  /** The journal was changed after the client wrote it. */
  | 'journal-broken'
  /** The size or SHA-256 of a stream differs from the custody record. */
  | 'size-changed'
  | 'digest-changed'
  /** The upload is newer than the custody record's first entry, but not recorded. */
  | 'unrecorded'
  /**
   * The upload is older than the custody record: only its run record confirms it until it is
   * adopted.
   */
  | 'older'
  /**
   * An upload arrived under a name that was taken by other bytes, which are kept too or were
   * replaced.
   */
  | 'differing'
  | 'replaced'
  /** The upload was recorded, neither removed nor archived, and is missing. */
  | 'group-missing'
  /**
   * An archive was recorded, neither removed nor unpacked, and one of its files is missing or
   * differs.
   */
  | 'pack-missing'
  | 'pack-changed'
  /** A foreign file, a symbolic link, or something that is neither a file nor a directory. */
  | 'unexpected'
  | 'link'
  /**
   * Users other than the owner may write to the file, or its owner is neither root nor the owner of
   * the locker.
   */
  | 'mode'
  | 'owner'
  | 'unreadable'
  /** EnableCustody=Y, but there is no custody record, or a segment of it is missing. */
  | 'custody-missing'
  /** A record by another writer is in the file, or the whole file is another server's. */
  | 'custody-foreign'
  /** A line of the custody record is wrong: ChainFault of webjob-locker. */
  | 'custody-edited'
  | 'custody-broken'
  | 'custody-torn'
  /** A line is not a checkpoint, or its signature does not verify. */
  | 'checkpoint-invalid'
  /** The custody record is shorter than at a checkpoint, or was changed before it. */
  | 'checkpoint-truncated'
  | 'checkpoint-changed'
  /** In evidence packages only: a signature on the program's manifest is wrong. */
  | 'manifest-wrong'
  /** The custody record is shorter than when root last saw it, or was changed before that point. */
  | 'witness-truncated'
  | 'witness-changed';

export interface Finding {
  kind: FindingKind;
  /** The upload or file, as a path below the locker, or the name of a custody record. */
  place: string;
  detail: string;
}
