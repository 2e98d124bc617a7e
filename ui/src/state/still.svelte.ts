// Whether lists stand still. What a row asks the host for can wait until it is not on its way out of sight again.

const REST = 250;

class Still {
  on = $state(true);
  #last = 0;

  /** A list was scrolled. */
  moved(): void {
    this.#last = performance.now();
    if (!this.on) return;
    this.on = false;
    this.#wait(REST);
  }

  /** One timer for a whole scroll, not one for each of its steps. */
  #wait(ms: number): void {
    setTimeout(() => {
      const left = this.#last + REST - performance.now();
      if (left > 0) this.#wait(left);
      else this.on = true;
    }, ms);
  }
}

export const still = new Still();
