/** One line that says what is going on, on a terminal; elsewhere nothing. */
export class Progress {
  #shown = false;

  /** @param {string} text */
  show(text) {
    if (!process.stderr.isTTY) return;
    this.#shown = true;
    process.stderr.write(`\r\x1b[K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`);
  }

  end() {
    if (this.#shown) process.stderr.write('\r\x1b[K');
    this.#shown = false;
  }
}
