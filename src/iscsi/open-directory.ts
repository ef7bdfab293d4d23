import { FULL_ACCESS } from '../scsi/lun-access.ts';
import type { Target } from '../scsi/target.ts';
import type { Admission, Gate, TargetDirectory } from './access.ts';

const OPEN: Gate = { open: true, chap: false, credentials: [] };
const SHUT: Gate = { open: false, chap: false, credentials: [] };

/** Targets that whoever reaches the portal may have. */
export class OpenDirectory implements TargetDirectory {
  private readonly targets: ReadonlyMap<string, Target>;

  /** `targets` by their normalized names; may change. */
  constructor(targets: ReadonlyMap<string, Target>) {
    this.targets = targets;
  }

  gate(_initiatorName: string, targetName: string | null): Gate {
    return targetName === null || this.targets.has(targetName) ? OPEN : SHUT;
  }

  find(name: string): Admission | undefined {
    const target = this.targets.get(name);
    return target === undefined ? undefined : { target, access: FULL_ACCESS };
  }

  list(): string[] {
    return [...this.targets.keys()];
  }
}
