// A choice of how something is shown, kept for the next time.

export class Kept<T> {
  #key: string;
  #value = $state.raw() as T;

  constructor(key: string, first: T) {
    this.#key = `slipway.${key}`;
    this.#value = first;
    try {
      const stored = localStorage.getItem(this.#key);
      if (stored !== null) this.#value = JSON.parse(stored) as T;
    } catch {
      // What an older version kept is of no use; the default is.
    }
  }

  get value(): T {
    return this.#value;
  }

  set value(value: T) {
    this.#value = value;
    localStorage.setItem(this.#key, JSON.stringify(value));
  }
}
