import { assert } from '../base/assert.ts';
import type { CommandRow, CommandTable } from './command.ts';

/** Finds the row of a CDB in constant time. Opcodes are unique, or have service actions that are. */
export class RowIndex implements CommandTable {
  readonly rows: readonly CommandRow[];
  readonly #byOpcode: (CommandRow | null)[] = new Array<CommandRow | null>(256).fill(null);
  /** By opcode * 32 + service action. */
  readonly #byAction: (CommandRow | null)[] = new Array<CommandRow | null>(256 * 32).fill(null);
  readonly #hasActions: boolean[] = new Array<boolean>(256).fill(false);

  constructor(rows: readonly CommandRow[]) {
    this.rows = [...rows].sort((a, b) => a.opcode - b.opcode || a.serviceAction - b.serviceAction);
    for (const row of rows) {
      assert(row.usage.length === row.cdbLength && row.usage[0] === row.opcode, 'usage data fits its CDB');
      const { opcode, serviceAction } = row;
      if (serviceAction < 0) {
        assert(this.#byOpcode[opcode] === null && !this.#hasActions[opcode], 'one row an opcode');
        this.#byOpcode[opcode] = row;
      } else {
        const at = opcode * 32 + serviceAction;
        assert(
          serviceAction < 32 && this.#byAction[at] === null && this.#byOpcode[opcode] === null,
          'one row an action',
        );
        this.#byAction[at] = row;
        this.#hasActions[opcode] = true;
      }
    }
  }

  find(opcode: number, serviceAction: number): CommandRow | null {
    const row = this.#byOpcode[opcode]!;
    if (row !== null || !this.#hasActions[opcode]) return row;
    return serviceAction < 32 ? this.#byAction[opcode * 32 + serviceAction]! : null;
  }

  hasServiceActions(opcode: number): boolean {
    return this.#hasActions[opcode]!;
  }
}
