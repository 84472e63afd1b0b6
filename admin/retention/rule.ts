// Applies the operator's rule for prune to the contents of a locker. Changes nothing.
import type { Scanned } from './scan.ts';

export interface Rule {
  olderThanSeconds?: number;
  /** Keep this many of the newest uploads of every client and command. */
  keep?: number;
  /** The maximum size of the locker in bytes. */
  maxBytes?: number;
  /** Select incomplete uploads as well as complete ones. */
  incomplete?: boolean;
}

export interface Selection {
  /** Oldest first. */
  selected: Scanned[];
  /** Selected by the rule, but kept because a process is writing them. */
  locked: Scanned[];
  /** Selected by the rule, but kept because they are on hold. */
  held: Scanned[];
  /** Bytes over maxBytes that no further removal can free. */
  excessBytes: number;
}

/** Selects uploads; one is selected when every part of the rule allows it. */
export function selectGroups(
  groups: readonly Scanned[],
  rule: Rule,
  now: number,
  isHeld: (group: Scanned) => boolean,
): Selection {
  const kept = rule.keep === undefined ? undefined : findNewest(groups, rule.keep);
  const candidates = groups
    .filter((group) => group.isComplete || rule.incomplete)
    .filter(({ at }) => rule.olderThanSeconds === undefined || at < now - rule.olderThanSeconds * 1000)
    .filter((group) => kept === undefined || (group.owner !== undefined && !kept.has(group)))
    .sort((a, b) => a.at - b.at || (a.name < b.name ? -1 : 1));
  const all = groups.reduce((sum, { bytes }) => sum + bytes, 0);
  let excessBytes = rule.maxBytes === undefined ? Number.POSITIVE_INFINITY : all - rule.maxBytes;
  const selection: Selection = { selected: [], locked: [], held: [], excessBytes: 0 };
  for (const group of candidates) {
    if (excessBytes <= 0) break;
    if (isHeld(group)) selection.held.push(group);
    else if (group.isLocked) selection.locked.push(group);
    else {
      selection.selected.push(group);
      excessBytes -= group.bytes;
    }
  }
  selection.excessBytes = Number.isFinite(excessBytes) ? Math.max(0, excessBytes) : 0;
  return selection;
}

function findNewest(groups: readonly Scanned[], count: number): Set<Scanned> {
  const byOwner = new Map<string, Scanned[]>();
  for (const group of groups) {
    if (!group.owner || !group.isComplete) continue;
    const key = `${group.owner.clientId} ${group.owner.command}`;
    const same = byOwner.get(key);
    if (same) same.push(group);
    else byOwner.set(key, [group]);
  }
  return new Set([...byOwner.values()].flatMap((same) => same.sort((a, b) => b.at - a.at).slice(0, count)));
}

/** `--older-than 90d --keep 5`, for the custody record. */
export function formatRule({ olderThanSeconds, keep, maxBytes, incomplete }: Rule): string {
  return [
    olderThanSeconds === undefined ? [] : `--older-than ${olderThanSeconds}s`,
    keep === undefined ? [] : `--keep ${keep}`,
    maxBytes === undefined ? [] : `--max-bytes ${maxBytes}`,
    incomplete ? '--incomplete' : [],
  ]
    .flat()
    .join(' ');
}
