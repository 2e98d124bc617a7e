// Bytes into lines: of JSON streams and of logs. A character that is cut by a chunk's end is put together again.

export class Lines {
  readonly #onLine: (line: string) => void;
  readonly #decoder = new TextDecoder();
  #rest = "";

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  push(bytes: Uint8Array): void {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    let from = 0;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", from)) {
      const line = text.slice(from, at);
      from = at + 1;
      this.#onLine(line);
    }
    this.#rest = text.slice(from);
  }

  /** What came after the last line end is a line too. */
  end(): void {
    const rest = this.#rest + this.#decoder.decode();
    this.#rest = "";
    if (rest !== "") this.#onLine(rest);
  }
}
