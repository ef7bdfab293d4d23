import { MODE_PAGES, type ModePage, type ModeSubject, writePageHeader } from './mode-pages.ts';

/** PC of MODE SENSE. */
export const PageControl = { CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3 } as const;
export type PageControl = (typeof PageControl)[keyof typeof PageControl];

/** Name of a page among the saved ones. */
export function pageName({ code, subpage }: ModePage): string {
  const name = code.toString(16).padStart(2, '0');
  return subpage === 0 ? name : `${name}.${subpage.toString(16).padStart(2, '0')}`;
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** The mode parameters of a unit: current ones that nobody has set are the saved ones, saved ones that nobody has saved are the defaults. */
export class ModeState {
  /** Those that the unit has. */
  readonly pages: readonly ModePage[];
  readonly savable: boolean;
  readonly #unit: ModeSubject;
  readonly #current: Map<ModePage, Uint8Array> = new Map();
  readonly #saved: Map<ModePage, Uint8Array> = new Map();

  /** `saved`: see `UnitMemory`; what cannot be is left out. */
  constructor(unit: ModeSubject, saved: Readonly<Record<string, string>>, savable: boolean) {
    this.#unit = unit;
    this.savable = savable;
    this.pages = MODE_PAGES.filter((page) => page.isOffered(unit));
    for (const page of this.pages) {
      const bytes = Buffer.from(saved[pageName(page)] ?? '', 'hex');
      if (bytes.length === page.length) this.#saved.set(page, this.#changed(page, bytes));
      page.apply(unit, this.#bytes(page, PageControl.CURRENT));
    }
  }

  /** Writes a page with its header. */
  write(page: ModePage, control: PageControl, out: Uint8Array, at: number): void {
    out.set(this.#bytes(page, control), at);
  }

  /** Takes what an initiator has set; true when that changes something. */
  select(page: ModePage, bytes: Uint8Array): boolean {
    const before = this.#bytes(page, PageControl.CURRENT);
    const after = this.#changed(page, bytes);
    if (Buffer.compare(before, after) === 0) return false;
    this.#current.set(page, after);
    page.apply(this.#unit, after);
    return true;
  }

  /** The saved pages when these are saved with `bytes`, for `UnitMemory`. */
  savedWith(pages: ReadonlyMap<ModePage, Uint8Array>): Record<string, string> {
    const saved = new Map(this.#saved);
    for (const [page, bytes] of pages) saved.set(page, this.#changed(page, bytes));
    return Object.fromEntries([...saved].map(([page, bytes]) => [pageName(page), toHex(bytes)]));
  }

  /** These are saved now. */
  setSaved(page: ModePage, bytes: Uint8Array): void {
    this.#saved.set(page, this.#changed(page, bytes));
  }

  /** The current pages that somebody has set, by name, in hexadecimal. */
  handOver(): Record<string, string> {
    return Object.fromEntries([...this.#current].map(([page, bytes]) => [pageName(page), toHex(bytes)]));
  }

  /** Pages that are not there any more, or have another length, are left out: their parameters are the saved ones. */
  takeOver(pages: Readonly<Record<string, string>>): void {
    for (const page of this.pages) {
      const bytes = Buffer.from(pages[pageName(page)] ?? '', 'hex');
      if (bytes.length === page.length) this.select(page, bytes);
    }
  }

  /** The current parameters are the saved ones again. */
  reset(): void {
    this.#current.clear();
    for (const page of this.pages) page.apply(this.#unit, this.#bytes(page, PageControl.CURRENT));
  }

  #bytes(page: ModePage, control: PageControl): Uint8Array {
    // What nobody can change says how the unit is now, whenever it was saved: the geometry follows its size.
    const isSettable = page.changeable.size > 0;
    if (isSettable && control === PageControl.CURRENT) {
      const current = this.#current.get(page);
      if (current !== undefined) return current;
    }
    if (isSettable && (control === PageControl.CURRENT || control === PageControl.SAVED)) {
      const saved = this.#saved.get(page);
      if (saved !== undefined) return saved;
    }
    const out = new Uint8Array(page.length);
    writePageHeader(page, this.savable, out, 0);
    if (control !== PageControl.CHANGEABLE) page.writeDefaults(this.#unit, out);
    else for (const [byte, bits] of page.changeable) out[byte] = bits;
    return out;
  }

  /** The defaults with the changeable bits of `bytes`. */
  #changed(page: ModePage, bytes: Uint8Array): Uint8Array {
    const out = this.#bytes(page, PageControl.DEFAULT);
    for (const [byte, bits] of page.changeable) out[byte] = (out[byte]! & ~bits) | (bytes[byte]! & bits);
    return out;
  }
}
