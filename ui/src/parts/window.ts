// Which rows of a long list are in sight. Pure, so it is tested without a browser.

export interface Rows {
  from: number;
  /** Past the last. */
  to: number;
}

/** Rows of one height; some beyond both edges, so that scrolling does not show gaps. */
export function rowsInSight(scrollTop: number, viewport: number, rowHeight: number, count: number, beyond = 8): Rows {
  const from = Math.max(0, Math.floor(scrollTop / rowHeight) - beyond);
  const to = Math.min(count, Math.ceil((scrollTop + viewport) / rowHeight) + beyond);
  return { from: Math.min(from, to), to };
}

/** Rows of many heights, given in units: where each begins, and which one is at a place. */
export class Offsets {
  #starts: number[] = [0];

  get total(): number {
    return this.#starts[this.#starts.length - 1];
  }

  get count(): number {
    return this.#starts.length - 1;
  }

  clear(): void {
    this.#starts = [0];
  }

  push(height: number): void {
    this.#starts.push(this.total + height);
  }

  start(index: number): number {
    return this.#starts[index] ?? this.total;
  }

  /** The row that covers this place. */
  at(place: number): number {
    let low = 0;
    let high = Math.max(0, this.count - 1);
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#starts[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
