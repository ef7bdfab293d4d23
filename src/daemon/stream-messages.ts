/** Messages of the control socket about streams of volumes, and about trimming. See control-messages.ts. */
import * as z from 'zod';

/** The header that has a stream's `StreamMessage`. */
export const STREAM_HEADER_NAME = 'x-thinlun-stream';

export interface SendVolumeMessage {
  /** A read-only volume that the receiver has. */
  from?: string | undefined;
  /** What `ResumeTokenMessage` has. */
  resume?: string | undefined;
  /** Name for the snapshot that is taken of a writable volume: it is kept. */
  keep?: string | undefined;
}

/** Beside the stream of a volume. */
export interface StreamMessage {
  /** An upper limit of the data that comes. */
  expectedBytes: number;
}

export interface ResumeTokenMessage {
  token: string;
}

export interface TrimMessage {
  /** 0 at first, then what the answer to the last one says. */
  fromBlock: number;
}

/** A part of the free space has been discarded. */
export interface TrimmedMessage {
  trimmedBytes: number;
  /** Where the next part begins; null: that was all. */
  nextBlock: number | null;
  /** Of the pool. */
  blockCount: number;
}

const size = z.int().min(0);

export const sendVolumeSchema: z.ZodType<SendVolumeMessage> = z.strictObject({
  from: z.string().min(1).max(255).optional(),
  resume: z.string().min(1).max(1024).optional(),
  keep: z.string().min(1).max(255).optional(),
});

export const streamSchema: z.ZodType<StreamMessage> = z.object({ expectedBytes: size });
export const resumeTokenSchema: z.ZodType<ResumeTokenMessage> = z.object({ token: z.string() });

export const trimSchema: z.ZodType<TrimMessage> = z.strictObject({ fromBlock: size });

export const trimmedSchema: z.ZodType<TrimmedMessage> = z.object({
  trimmedBytes: size,
  nextBlock: size.nullable(),
  blockCount: size,
});
