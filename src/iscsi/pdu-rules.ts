import { isFinal, isImmediate, taskTag } from './command-pdu.ts';
import type { PduParser } from './pdu-parser.ts';
import { Opcode, RESERVED_TAG, RejectReason } from './spec.ts';

/**
 * Why the PDU at `parser`, which is neither a command nor data, cannot be what its opcode says, whatever the session is about; 0 when it can (RFC 7143 11). Fields that the RFC calls reserved
 * are not looked at.
 */
export function refuseRequest(parser: PduParser): RejectReason | 0 {
  const { opcode } = parser;
  const hasTag = taskTag(parser) !== RESERVED_TAG;
  // Only commands have additional header segments (11.2.2).
  if (parser.ahsLength > 0) return RejectReason.INVALID_PDU_FIELD;
  // A text may go on in the next request; everything else is one PDU.
  if (opcode !== Opcode.TEXT && !isFinal(parser)) return RejectReason.PROTOCOL_ERROR;
  // A NOP-Out that wants no answer cannot acknowledge its CmdSN and so has none (11.18).
  if (opcode === Opcode.NOP_OUT) return hasTag || isImmediate(parser) ? 0 : RejectReason.PROTOCOL_ERROR;
  if (!hasTag) return RejectReason.INVALID_PDU_FIELD;
  if (opcode !== Opcode.TEXT && parser.dataLength > 0) return RejectReason.INVALID_PDU_FIELD;
  return 0;
}
