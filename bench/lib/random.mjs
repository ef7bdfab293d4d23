/** A small generator (xorshift32): the same numbers for every server and in each run. */
export class Random {
  #state;

  /** @param {number} seed */
  constructor(seed) {
    this.#state = (Math.imul(seed, 2654435761) | 1) >>> 0;
  }

  /** A whole number below `limit`, which is at most 2^32. @param {number} limit */
  below(limit) {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % limit;
  }

  /** Puts a list into no order. @template {Uint32Array | number[]} T @param {T} list @returns {T} */
  shuffle(list) {
    for (let i = list.length - 1; i > 0; i--) {
      const other = this.below(i + 1);
      const here = /** @type {number} */ (list[i]);
      list[i] = /** @type {number} */ (list[other]);
      list[other] = here;
    }
    return list;
  }
}
