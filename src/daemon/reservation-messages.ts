/** Messages of the control socket about reservations. See control-messages.ts. */
import * as z from 'zod';

/** SPC-4's types, as they are named in `sg_persist`'s words. */
export const RESERVATION_TYPES = [
  'write-exclusive',
  'exclusive-access',
  'write-exclusive-registrants-only',
  'exclusive-access-registrants-only',
  'write-exclusive-all-registrants',
  'exclusive-access-all-registrants',
] as const;
export type ReservationTypeName = (typeof RESERVATION_TYPES)[number];

/** An I_T nexus. */
export interface NexusMessage {
  /** iSCSI name. */
  initiator: string;
  /** 12 hexadecimal digits. */
  isid: string;
  /** Relative target port identifier. */
  targetPort: number;
  /** Null where no server has the pool. */
  loggedIn: boolean | null;
}

export interface RegistrantMessage extends NexusMessage {
  /** 0x and 16 hexadecimal digits. */
  key: string;
  holdsReservation: boolean;
}

export interface VolumeReservationsMessage {
  volume: string;
  /** Of the persistent reservation; null without one. */
  type: ReservationTypeName | null;
  /** Registrations and persistent reservation outlive the server (APTPL). */
  survivesRestart: boolean;
  /** PRGENERATION; null where no server has the pool. */
  generation: number | null;
  registrants: RegistrantMessage[];
  /** Who has the volume with RESERVE(6) or RESERVE(10), which are none of the persistent ones. */
  reservedBy: NexusMessage | null;
}

export interface ReservationListMessage {
  volumes: VolumeReservationsMessage[];
}

export interface ClearReservationsMessage {
  /** Only what this initiator has; otherwise what everybody has. */
  initiator?: string | undefined;
  /** Though an initiator that loses something is logged in. */
  force?: boolean | undefined;
}

const nexus = {
  initiator: z.string(),
  isid: z.string(),
  targetPort: z.int(),
  loggedIn: z.boolean().nullable(),
};

export const volumeReservationsSchema: z.ZodType<VolumeReservationsMessage> = z.object({
  volume: z.string(),
  type: z.enum(RESERVATION_TYPES).nullable(),
  survivesRestart: z.boolean(),
  generation: z.int().nullable(),
  registrants: z.array(z.object({ ...nexus, key: z.string(), holdsReservation: z.boolean() })),
  reservedBy: z.object(nexus).nullable(),
});

export const reservationListSchema: z.ZodType<ReservationListMessage> = z.object({
  volumes: z.array(volumeReservationsSchema),
});

export const clearReservationsSchema: z.ZodType<ClearReservationsMessage> = z.strictObject({
  initiator: z.string().min(1).max(512).optional(),
  force: z.boolean().optional(),
});
