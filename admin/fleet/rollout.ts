// Rollouts: decides whether a stage is complete, and what happens next.
import { recordEvent } from '../../evidence/events.ts';
import { type Assignment, openFor, type Rollout, rankOf } from '../../fleet/assignment.ts';
import { readGroups } from '../../ledger/groups.ts';
import type { Context } from '../clients/context.ts';
import type { Site } from '../site/site.ts';
import { changeBook, readBook } from './assignments.ts';
import { findTargets, listClientIds } from './clients.ts';
import { type ClientProgress, readProgress } from './states.ts';

/** A decision about an assignment. */
export interface Step {
  id: string;
  kind: 'opened' | 'stopped';
  /** The stage that was opened, or in which it was stopped. */
  stage: number;
  bad: number;
  results: number;
}

const RESULTS = new Set(['done', 'failed', 'lost']);
const BAD = new Set(['failed', 'lost']);

/**
 * Opens the next stage of each rollout whose stage is complete, and pauses rollouts with too many
 * failures. Throws Failure `failed`.
 */
export async function stepRollouts(site: Site, context: Context, now = Math.floor(Date.now() / 1000)): Promise<Step[]> {
  const book = readBook(site.settings);
  const rollouts = book.active.filter(({ rollout, state }) => rollout && state === 'active');
  if (rollouts.length === 0) return [];
  const [groups, clientIds] = [readGroups(site.settings), listClientIds(context)];
  const steps: Step[] = [];
  for (const assignment of rollouts) {
    const targets = findTargets(assignment, groups, clientIds);
    const progress = await readProgress(site, book, assignment, targets, now);
    const step = decide(assignment, [...progress.clients()], now);
    if (step && (await carryOut(site, step, targets, now))) steps.push(step);
  }
  return steps;
}

function decide(assignment: Assignment, progress: readonly ClientProgress[], now: number): Step | undefined {
  const { id, rollout, open } = assignment as Assignment & { rollout: Rollout };
  const reached = progress.filter(({ clientId, due }) => due !== undefined || rankOf(assignment, clientId) < open);
  const results = reached.filter(({ state }) => RESULTS.has(state)).length;
  const bad = reached.filter(({ state }) => BAD.has(state)).length;
  const facts = { id, bad, results };
  if (rollout.stopAt !== undefined && bad > rollout.stopAt * results)
    return { ...facts, kind: 'stopped', stage: rollout.stage };
  const isLate = rollout.seconds !== undefined && now - rollout.openedAt >= rollout.seconds && results > 0;
  const isOver = results === reached.length || isLate;
  if (!isOver || rollout.stage + 1 >= rollout.stages.length) return undefined;
  return { ...facts, kind: 'opened', stage: rollout.stage + 1 };
}

/** Carries out a decision; false when someone else has changed the assignment meanwhile. */
async function carryOut(site: Site, step: Step, targets: readonly string[], now: number): Promise<boolean> {
  return await changeBook(site.settings, ({ active }) => {
    const assignment = active.find(({ id }) => id === step.id);
    const { rollout } = assignment ?? {};
    if (!assignment || !rollout || assignment.state !== 'active') return false;
    const reason = `${step.bad} of ${step.results} results are bad`;
    if (step.kind === 'stopped') {
      recordEvent(site.settings, {
        event: 'assign-change',
        id: step.id,
        state: 'paused',
        reason: `stopped: ${reason}`,
      });
      assignment.state = 'paused';
      return true;
    }
    if (rollout.stage + 1 !== step.stage) return false;
    recordEvent(site.settings, { event: 'assign-change', id: step.id, state: `stage ${step.stage + 1}`, reason });
    assignment.rollout = { ...rollout, stage: step.stage, openedAt: now };
    assignment.open = openFor(assignment, targets, rollout.stages[step.stage] ?? 1);
    return true;
  });
}
