import { randomBytes } from 'node:crypto';
import { OpenDirectory } from '../../src/iscsi/open-directory.ts';
import { Portal } from '../../src/iscsi/portal.ts';
import { Target } from '../../src/scsi/target.ts';
import { endTakeOver, handOverUnit, takeOverUnit } from '../../src/scsi/unit-handover.ts';
import { makeUnit, type TestPortal } from './iscsi-portal.ts';

/** All that goes from one process to another, as it goes: as text. */
export function asSent<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** The world with another portal, target and unit over the same disk, which go on from the old ones once these are quiet. */
export async function takeOver(world: TestPortal, limitMs: number = 2000): Promise<TestPortal> {
  await world.portal.stopAccepting();
  await world.portal.freeze(limitMs);
  const fds: number[] = [];
  const unit = makeUnit(world.lun, 1);
  takeOverUnit(unit.state, asSent(handOverUnit(world.unit.state)));
  const handover = asSent(world.portal.handOver((fd) => fds.push(fd) - 1));
  const target = new Target(world.target.name);
  target.setLun(0, unit);
  const targets = new Map([[target.name, target]]);
  const portal = new Portal({ targets: new OpenDirectory(targets), randomBytes });
  portal.takeOver(handover, (index) => fds[index]!);
  endTakeOver(unit.state);
  await portal.resume();
  return Object.assign(world, { portal, target, targets, unit });
}
