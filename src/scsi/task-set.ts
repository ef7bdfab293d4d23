import { assert } from '../base/assert.ts';
import type { Nexus } from './nexus.ts';
import { type ScsiTask, TaskAttribute } from './task.ts';

/** Tasks that one nexus may have in a task set: more than a session's command window, and all that a TCMU ring has in flight. */
export const MAX_TASKS_PER_NEXUS = 1024;
/** Tasks that a task set takes from all nexuses together. */
export const MAX_TASKS = 4096;

/** Where a task of the set is. */
export const MemberState = {
  NONE: 0,
  /** Its front end fetches its data. */
  PREPARED: 1,
  /** The same, but its front end has no room for the data at the moment, or had none. */
  POSTPONED: 2,
  /** Its front end has done its part; its turn has not come. */
  DORMANT: 3,
  RUNNING: 4,
} as const;
export type MemberState = (typeof MemberState)[keyof typeof MemberState];

/** Of one nexus at one logical unit: what it has in the task set. */
export interface NexusTasks {
  taskCount: number;
}

/** Waits for the end of tasks that were aborted. */
export interface AbortWaiter {
  taskEnded(): void;
}

/** A command, as its task set sees it. The fields are the set's; the command only implements the functions. */
export interface TaskSetMember {
  readonly task: ScsiTask;
  readonly nexusState: NexusTasks | null;
  setState: MemberState;
  setPrevious: TaskSetMember | null;
  setNext: TaskSetMember | null;
  /** Told when the task has ended, after its owner. */
  abortWaiters: AbortWaiter[] | null;
  /** Its turn has come. `waited`: later than at `start`, so that what was checked then may have changed. */
  begin(waited: boolean): void;
  /** Ends with TASK ABORTED; it has not begun. */
  endAborted(): void;
  /** It has begun and was aborted: ends as early as is safe. */
  hurry(): void;
}

/** Calls back once, when all tasks that it was told of have ended. */
class Endings implements AbortWaiter {
  readonly #ended: () => void;
  #pending = 1;

  constructor(ended: () => void) {
    this.#ended = ended;
  }

  expect(): void {
    this.#pending++;
  }

  taskEnded(): void {
    this.#pending--;
    if (this.#pending === 0) this.#ended();
  }
}

/**
 * The task set of a logical unit (SAM-5 8): the tasks of all nexuses (TST 000b) in the order in which they came, from `prepare` to their end.
 *
 * SIMPLE tasks begin in any order (QUEUE ALGORITHM MODIFIER 1). An ORDERED task begins when everything before it has ended, and nothing that came
 * later begins before it has ended. A HEAD OF QUEUE task begins at once; nothing else begins before it has ended. As long as all tasks are SIMPLE, the set
 * costs a place in a list.
 */
export class TaskSet {
  /** TAS of the control mode page: tasks that another nexus aborts end with TASK ABORTED instead of silently. */
  reportsAborted = true;
  #count = 0;
  /** Tasks that hold others up: ORDERED and HEAD OF QUEUE. */
  #barriers = 0;
  #dormant = 0;
  #postponed = 0;
  #aborting = 0;
  #first: TaskSetMember | null = null;
  #last: TaskSetMember | null = null;
  #beginning = false;
  #beginAgain = false;

  get count(): number {
    return this.#count;
  }

  /** No more tasks of that nexus for now. See `postpone` for ORDERED tasks. */
  isFullFor(nexus: NexusTasks | null, attribute: TaskAttribute): boolean {
    if (this.#postponed > 0 && attribute === TaskAttribute.ORDERED) return true;
    return this.#count >= MAX_TASKS || (nexus !== null && nexus.taskCount >= MAX_TASKS_PER_NEXUS);
  }

  /** Takes a task in that has been prepared: HEAD OF QUEUE before all others, else behind them. */
  enter(member: TaskSetMember): void {
    assert(member.setState === MemberState.NONE, 'a task enters its set once');
    member.setState = MemberState.PREPARED;
    if (member.task.attribute === TaskAttribute.HEAD_OF_QUEUE) {
      member.setPrevious = null;
      member.setNext = this.#first;
      if (this.#first !== null) this.#first.setPrevious = member;
      else this.#last = member;
      this.#first = member;
    } else {
      member.setNext = null;
      member.setPrevious = this.#last;
      if (this.#last !== null) this.#last.setNext = member;
      else this.#first = member;
      this.#last = member;
    }
    if (member.task.attribute !== TaskAttribute.SIMPLE) this.#barriers++;
    if (member.nexusState !== null) member.nexusState.taskCount++;
    this.#count++;
  }

  /**
   * The front end has no room for the data of a task that was prepared, and would let it wait. False while order matters: tasks that hold the room may wait for this one.
   * For the same reason no ORDERED task is taken in while one is postponed.
   */
  postpone(member: TaskSetMember): boolean {
    if (this.#barriers > 0) return false;
    if (member.setState === MemberState.PREPARED) {
      member.setState = MemberState.POSTPONED;
      this.#postponed++;
    }
    return true;
  }

  /** The front end has done its part: the task begins now, or when its turn comes. */
  start(member: TaskSetMember): void {
    if (member.setState === MemberState.POSTPONED) this.#postponed--;
    else assert(member.setState === MemberState.PREPARED, 'a task that starts has been prepared');
    if (this.#barriers === 0 || this.#hasTurn(member)) {
      member.setState = MemberState.RUNNING;
      member.begin(false);
    } else {
      member.setState = MemberState.DORMANT;
      this.#dormant++;
    }
  }

  /** The task has ended, or its front end gives it up before `start`. `advance` follows. */
  leave(member: TaskSetMember): void {
    assert(member.setState !== MemberState.NONE, 'a task that leaves is in the set');
    if (member.setState === MemberState.DORMANT) this.#dormant--;
    else if (member.setState === MemberState.POSTPONED) this.#postponed--;
    member.setState = MemberState.NONE;
    if (member.setPrevious !== null) member.setPrevious.setNext = member.setNext;
    else this.#first = member.setNext;
    if (member.setNext !== null) member.setNext.setPrevious = member.setPrevious;
    else this.#last = member.setPrevious;
    member.setPrevious = null;
    member.setNext = null;
    if (member.task.attribute !== TaskAttribute.SIMPLE) this.#barriers--;
    if (member.nexusState !== null) member.nexusState.taskCount--;
    this.#count--;
  }

  /** Begins what a task that has left has held up. */
  advance(): void {
    if (this.#dormant > 0 && this.#aborting === 0) this.#beginDormant();
  }

  /**
   * Aborts every task that `selects` picks (SAM-5 5.6): what has not begun ends now, what has begun as early as is safe. Tasks of the nexus `by` get no status; the
   * others get TASK ABORTED if TAS is set, else none either. `ended` is called once, now or later, when all of them have ended; a command that aborts must not
   * select itself. Returns the other nexuses that lost tasks; unit attentions are the caller's part.
   */
  abort(selects: (task: ScsiTask) => boolean, by: Nexus | null, ended: () => void): Set<Nexus> {
    const others = new Set<Nexus>();
    const endings = new Endings(ended);
    // Nothing that is to be aborted begins because something before it has ended.
    this.#aborting++;
    for (const member of this.#select(selects)) {
      // The end of another one may have ended it, or even begun something else with it.
      if (member.setState === MemberState.NONE || !selects(member.task)) continue;
      const { nexus } = member.task;
      if (nexus !== by) others.add(nexus);
      this.#abortMember(member, this.reportsAborted && nexus !== by, endings);
    }
    this.#aborting--;
    endings.taskEnded();
    this.advance();
    return others;
  }

  /** Aborts one task, which gets no status. `ended` as for `abort`. */
  abortOne(member: TaskSetMember, ended: (() => void) | null): void {
    if (member.setState === MemberState.NONE) ended?.();
    else {
      const endings = ended === null ? null : new Endings(ended);
      this.#abortMember(member, false, endings);
      endings?.taskEnded();
      this.advance();
    }
  }

  /** True when `selects` picks a task of the set. */
  some(selects: (task: ScsiTask) => boolean): boolean {
    return this.#select(selects).length > 0;
  }

  #select(selects: (task: ScsiTask) => boolean): TaskSetMember[] {
    const selected: TaskSetMember[] = [];
    for (let member = this.#first; member !== null; member = member.setNext) {
      if (selects(member.task)) selected.push(member);
    }
    return selected;
  }

  #abortMember(member: TaskSetMember, report: boolean, endings: Endings | null): void {
    const { task } = member;
    // Who was to get no status from one abort does not get it from another.
    if (!task.aborted) task.abortReported = report;
    else if (!report) task.abortReported = false;
    task.aborted = true;
    if (member.setState === MemberState.RUNNING) {
      if (endings !== null) {
        endings.expect();
        if (member.abortWaiters === null) member.abortWaiters = [endings];
        else member.abortWaiters.push(endings);
      }
      member.hurry();
    } else if (member.setState === MemberState.DORMANT) member.endAborted();
    else {
      this.leave(member);
      task.owner.taskAborted(task);
    }
  }

  #hasTurn(member: TaskSetMember): boolean {
    const { attribute } = member.task;
    if (attribute === TaskAttribute.HEAD_OF_QUEUE) return true;
    if (attribute === TaskAttribute.ORDERED) return this.#first === member;
    for (let other = this.#first; other !== member; other = other!.setNext) {
      if (other!.task.attribute !== TaskAttribute.SIMPLE) return false;
    }
    return true;
  }

  /** Begins what was held up, as far as the first task that still holds up the rest. */
  #beginDormant(): void {
    if (this.#beginning) {
      this.#beginAgain = true;
      return;
    }
    this.#beginning = true;
    do {
      this.#beginAgain = false;
      for (let member = this.#first; member !== null && this.#dormant > 0; ) {
        const { setNext, task }: TaskSetMember = member;
        const isBarrier = task.attribute !== TaskAttribute.SIMPLE;
        if (member.setState === MemberState.DORMANT && (!isBarrier || member === this.#first)) {
          this.#dormant--;
          member.setState = MemberState.RUNNING;
          member.begin(true);
          // It may have ended, and others with it: look at the list from its begin.
          if (this.#beginAgain) break;
        }
        if (isBarrier) break;
        member = setNext;
      }
    } while (this.#beginAgain);
    this.#beginning = false;
  }
}
