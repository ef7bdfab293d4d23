import { type FrontEnd, SILENT_FRONT_END } from './front-end.ts';

/**
 * An I_T nexus (SAM-5 4.7): one initiator port at one target port. The portal makes one a session; TCMU, which is not told
 * who asks, has one pseudo-nexus a device. State that a logical unit keeps per nexus (unit attentions, reservations) hangs on this identity.
 */
export class Nexus {
  /** SCSI initiator port name: `iqn...,i,0x<isid>` for iSCSI. */
  readonly initiatorPort: string;
  /** SCSI target port name: `iqn...,t,0x<portal group tag>` for iSCSI; empty when it is not known. */
  readonly targetPort: string;
  /** Relative target port identifier, from 1; 0 when it is not known. */
  readonly relativeTargetPort: number;
  /** What it comes through. A `Target` sets its own when the nexus is attached. */
  frontEnd: FrontEnd;
  /** Called when there are other LUNs for it than before, where the transport can tell an initiator that is idle. */
  lunsChanged: (() => void) | null = null;

  constructor(
    initiatorPort: string,
    targetPort: string,
    relativeTargetPort: number,
    frontEnd: FrontEnd = SILENT_FRONT_END,
  ) {
    this.initiatorPort = initiatorPort;
    this.targetPort = targetPort;
    this.relativeTargetPort = relativeTargetPort;
    this.frontEnd = frontEnd;
  }
}
