/** Messages of the control socket about streams of volumes, and about trimming. See control-messages.ts. */
import * as v from 'valibot';
import { integer, object, type Schema, strictObject } from '../base/schema.ts';

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

const size = integer(0);

export const sendVolumeSchema: Schema<SendVolumeMessage> = strictObject({
  from: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(255))),
  resume: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(1024))),
  keep: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(255))),
});

export const streamSchema: Schema<StreamMessage> = object({ expectedBytes: size });
export const resumeTokenSchema: Schema<ResumeTokenMessage> = object({ token: v.string() });

export const trimSchema: Schema<TrimMessage> = strictObject({ fromBlock: size });

export const trimmedSchema: Schema<TrimmedMessage> = object({
  trimmedBytes: size,
  nextBlock: v.nullable(size),
  blockCount: size,
});
