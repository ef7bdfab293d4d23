/**
 * Layouts and numbers of the iSCSI protocol (RFC 7143 11).
 *
 * Every PDU begins with a basic header segment of 48 bytes; all fields are big-endian:
 *
 * ```
 *        0               1               2               3
 *   0   |.|I| opcode    |F| opcode-specific                             |
 *   4   |TotalAHSLength | DataSegmentLength                             |   AHS in words of 4 bytes, data in bytes
 *   8   | LUN, or opcode-specific (ISID and TSIH in a login)            |
 *  12   |                                                               |
 *  16   | Initiator Task Tag                                            |
 *  20   | opcode-specific: Target Transfer Tag, expected length, ...    |
 *  24   | CmdSN                         (from a target: StatSN)         |
 *  28   | ExpStatSN                     (from a target: ExpCmdSN)       |
 *  32   | opcode-specific               (from a target: MaxCmdSN)       |
 *  36   | opcode-specific: DataSN, R2TSN, ...                           |
 *  40   | opcode-specific: Buffer Offset, ...                           |
 *  44   | opcode-specific: Residual Count, ...                          |
 *  48   | additional header segments | header digest | data | padding | data digest
 * ```
 */

export const BHS_SIZE = 48;
export const DIGEST_SIZE = 4;
/** TotalAHSLength counts words of this many bytes; data segments are padded to it. */
export const PAD_SIZE = 4;

/** Byte 0, above the opcode. */
export const IMMEDIATE = 0x40;
export const OPCODE_MASK = 0x3f;

/** Opcodes that an initiator sends (RFC 7143 11.2.1.2). */
export const Opcode = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT_RESPONSE: 0x22,
  LOGIN_RESPONSE: 0x23,
  TEXT_RESPONSE: 0x24,
  DATA_IN: 0x25,
  LOGOUT_RESPONSE: 0x26,
  R2T: 0x31,
  ASYNC_MESSAGE: 0x32,
  REJECT: 0x3f,
} as const;

/** Byte positions of the fields that have the same place in several PDUs. */
export const Field = {
  FLAGS: 1,
  RESPONSE: 2,
  STATUS: 3,
  AHS_LENGTH: 4,
  DATA_LENGTH: 5,
  LUN: 8,
  ISID: 8,
  RESPONSE_INFORMATION: 8,
  TSIH: 14,
  TASK_TAG: 16,
  /** Target Transfer Tag; of a SCSI command the Expected Data Transfer Length; of task management the Referenced Task Tag. */
  TRANSFER_TAG: 20,
  EXPECTED_LENGTH: 20,
  REFERENCED_TAG: 20,
  CID: 20,
  CMD_SN: 24,
  STAT_SN: 24,
  EXP_STAT_SN: 28,
  EXP_CMD_SN: 28,
  MAX_CMD_SN: 32,
  CDB: 32,
  REF_CMD_SN: 32,
  DATA_SN: 36,
  R2T_SN: 36,
  EXP_DATA_SN: 36,
  STATUS_CLASS: 36,
  ASYNC_EVENT: 36,
  BUFFER_OFFSET: 40,
  TIME_TO_WAIT: 40,
  RESIDUAL: 44,
  DESIRED_LENGTH: 44,
} as const;

/** The tag that names nothing. */
export const RESERVED_TAG = 0xffffffff;

/** Byte 1, bit 7, of nearly everything. */
export const FINAL = 0x80;

/** Byte 1 of a SCSI command (RFC 7143 11.3.1). */
export const CommandFlag = { READ: 0x40, WRITE: 0x20, ATTRIBUTE_MASK: 0x07 } as const;
/** Bytes of the CDB that fit in the basic header. */
export const BASIC_CDB_SIZE = 16;

/** Byte 1 of a SCSI response and of a Data-In that carries status (RFC 7143 11.4.1, 11.7.3). */
export const ResidualFlag = { OVERFLOW: 0x04, UNDERFLOW: 0x02 } as const;
/** Byte 1 of a Data-In: status is in this PDU. */
export const DATA_IN_STATUS = 0x01;

/** Byte 2 of a SCSI response. */
export const CommandResponse = { COMPLETED_AT_TARGET: 0x00, TARGET_FAILURE: 0x01 } as const;

/** Types of additional header segments (RFC 7143 11.2.2). */
export const AhsType = { EXTENDED_CDB: 1, BIDIRECTIONAL_LENGTH: 2 } as const;

/** Byte 1 of text and login (RFC 7143 11.10, 11.12). */
export const CONTINUE = 0x40;
export const TRANSIT = 0x80;

/** Login stages, CSG and NSG (RFC 7143 11.12.3). */
export const Stage = { SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3 } as const;

/** The one version there is. */
export const VERSION = 0x00;

/** Status-Class times 256 plus Status-Detail of a login response (RFC 7143 11.13.5). */
export const LoginStatus = {
  SUCCESS: 0x0000,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILURE: 0x0201,
  AUTHORIZATION_FAILURE: 0x0202,
  NOT_FOUND: 0x0203,
  TARGET_REMOVED: 0x0204,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  CANNOT_INCLUDE_IN_SESSION: 0x0208,
  SESSION_TYPE_NOT_SUPPORTED: 0x0209,
  SESSION_DOES_NOT_EXIST: 0x020a,
  INVALID_DURING_LOGIN: 0x020b,
  TARGET_ERROR: 0x0300,
  SERVICE_UNAVAILABLE: 0x0301,
  OUT_OF_RESOURCES: 0x0302,
} as const;
export type LoginStatus = (typeof LoginStatus)[keyof typeof LoginStatus];

/** Byte 2 of a reject (RFC 7143 11.17.1). */
export const RejectReason = {
  DATA_DIGEST_ERROR: 0x02,
  SNACK_REJECT: 0x03,
  PROTOCOL_ERROR: 0x04,
  COMMAND_NOT_SUPPORTED: 0x05,
  TOO_MANY_IMMEDIATE: 0x06,
  TASK_IN_PROGRESS: 0x07,
  INVALID_PDU_FIELD: 0x09,
  LONG_OPERATION_REJECT: 0x0a,
  WAITING_FOR_LOGOUT: 0x0c,
} as const;
export type RejectReason = (typeof RejectReason)[keyof typeof RejectReason];

/** Byte 1, low 7 bits, of a task management request (RFC 7143 11.5.1, RFC 7144). */
export const TaskFunction = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_ACA: 3,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
  TASK_REASSIGN: 8,
  QUERY_TASK: 9,
  QUERY_TASK_SET: 10,
  I_T_NEXUS_RESET: 11,
  QUERY_ASYNCHRONOUS_EVENT: 12,
} as const;

/** Byte 2 of a task management response (RFC 7143 11.6.1, RFC 7144). */
export const TaskFunctionResponse = {
  COMPLETE: 0,
  TASK_DOES_NOT_EXIST: 1,
  LUN_DOES_NOT_EXIST: 2,
  REASSIGNMENT_NOT_SUPPORTED: 4,
  NOT_SUPPORTED: 5,
  /** Of the functions that ask: yes. */
  SUCCEEDED: 7,
  REJECTED: 255,
} as const;
export type TaskFunctionResponse = (typeof TaskFunctionResponse)[keyof typeof TaskFunctionResponse];

/** Byte 1, low 7 bits, of a logout (RFC 7143 11.14.1), and byte 2 of its response (11.15.1). */
export const LogoutReason = { CLOSE_SESSION: 0, CLOSE_CONNECTION: 1, REMOVE_FOR_RECOVERY: 2 } as const;
export const LogoutResponse = { CLOSED: 0, CID_NOT_FOUND: 1, RECOVERY_NOT_SUPPORTED: 2, CLEANUP_FAILED: 3 } as const;

/** Byte 36 of an asynchronous message (RFC 7143 11.9.1). */
export const AsyncEvent = { SCSI: 0, LOGOUT_REQUEST: 1, CONNECTION_DROPPED: 2, SESSION_DROPPED: 3 } as const;

/** Additional sense code and qualifier of the conditions that iSCSI itself reports, all with ABORTED COMMAND (RFC 7143 11.4.7.2). */
export const IscsiCondition = {
  UNEXPECTED_UNSOLICITED_DATA: 0x0c0c,
  INCORRECT_AMOUNT_OF_DATA: 0x0c0d,
  PROTOCOL_SERVICE_CRC_ERROR: 0x4705,
} as const;
export type IscsiCondition = (typeof IscsiCondition)[keyof typeof IscsiCondition];

/** All of RFC 7143's limits on a single text key, without the `=`. */
export const MAX_KEY_NAME_SIZE = 63;
/** The longest iSCSI name (RFC 7143 4.2.7.1). */
export const MAX_NAME_SIZE = 223;

/** What MaxRecvDataSegmentLength is before it has been declared, and always for login PDUs (RFC 7143 13.12). */
export const DEFAULT_SEGMENT_LENGTH = 8192;
