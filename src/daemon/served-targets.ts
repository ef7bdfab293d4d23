import type { Admission, Gate, Identity, TargetDirectory } from '../iscsi/access.ts';
import { Access } from '../scsi/command.ts';
import type { LunAccess } from '../scsi/lun-access.ts';
import type { AccessSettings } from './access-file.ts';
import type { PoolAccessControl, VolumeRights } from './pool-access-control.ts';
import type { VolumeExports } from './volume-exports.ts';

/** One pool on the portal. */
export interface ServedTarget {
  readonly exports: VolumeExports;
  readonly access: PoolAccessControl;
}

/** The targets of a server's pools by name, as their access lists let each initiator see them. */
export class ServedTargets implements TargetDirectory {
  readonly #targets: () => Iterable<ServedTarget>;

  constructor(targets: () => Iterable<ServedTarget>) {
    this.#targets = targets;
  }

  gate(initiatorName: string, targetName: string | null): Gate {
    const all = [...this.#targets()];
    const chap = all.some(({ access }) => access.usesChap);
    const asked = all.filter(({ exports }) => targetName === null || exports.target.name === targetName);
    const open = asked.some(({ access }) => access.isOpenTo(initiatorName));
    const credentials = asked.flatMap(({ access }) => access.credentials(initiatorName));
    // Where nobody can prove anything, everybody may ask what there is, and is told what is there for them.
    return { open: open || (targetName === null && !chap), chap, credentials };
  }

  find(name: string, identity: Identity): Admission | undefined {
    for (const { exports, access } of this.#targets()) {
      if (exports.target.name !== name) continue;
      if (access.rightsOf(identity) === null) return undefined;
      return { target: exports.target, access: new VolumeAccess(exports, access, identity) };
    }
    return undefined;
  }

  list(identity: Identity): string[] {
    const names: string[] = [];
    for (const { exports, access } of this.#targets()) {
      if (access.rightsOf(identity) !== null) names.push(exports.target.name);
    }
    return names;
  }
}

/** What the access list says now about the volume that is at a LUN now. */
class VolumeAccess implements LunAccess {
  readonly #exports: VolumeExports;
  readonly #control: PoolAccessControl;
  readonly #identity: Identity;
  #settings: AccessSettings | null = null;
  #rights: VolumeRights | null = null;

  constructor(exports: VolumeExports, control: PoolAccessControl, identity: Identity) {
    this.#exports = exports;
    this.#control = control;
    this.#identity = identity;
  }

  of(lun: number): Access {
    const { settings } = this.#control;
    if (settings !== this.#settings || settings === null) {
      this.#settings = settings;
      this.#rights = this.#control.rightsOf(this.#identity);
    }
    const name = this.#exports.volumeAt(lun);
    return name === undefined || this.#rights === null ? Access.NONE : this.#rights(name);
  }
}
