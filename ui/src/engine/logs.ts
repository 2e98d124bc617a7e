// The engine's streams of a container's output: with a terminal plain bytes, without one frames of stdout and stderr.
import { Lines } from "./lines";

export type Source = "stdout" | "stderr";

/** Splits frames: a byte for the stream, three of nothing, a big-endian length, the bytes. */
export class Demuxer {
  readonly #onBytes: (source: Source, bytes: Uint8Array) => void;
  readonly #head = new Uint8Array(8);
  #headLength = 0;
  #left = 0;

  constructor(onBytes: (source: Source, bytes: Uint8Array) => void) {
    this.#onBytes = onBytes;
  }

  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#left === 0) {
        const take = Math.min(8 - this.#headLength, bytes.length - at);
        this.#head.set(bytes.subarray(at, at + take), this.#headLength);
        this.#headLength += take;
        at += take;
        if (this.#headLength < 8) return;
        this.#headLength = 0;
        this.#left = new DataView(this.#head.buffer).getUint32(4);
        continue;
      }
      const take = Math.min(this.#left, bytes.length - at);
      this.#onBytes(this.#head[0] === 2 ? "stderr" : "stdout", bytes.subarray(at, at + take));
      this.#left -= take;
      at += take;
    }
  }
}

/** A container's output as lines. */
export class OutputLines {
  readonly #sources: Record<Source, Lines>;
  readonly #push: (bytes: Uint8Array) => void;

  constructor(tty: boolean, onLine: (source: Source, line: string) => void) {
    const lines = (source: Source) => new Lines((line) => onLine(source, line.endsWith("\r") ? line.slice(0, -1) : line));
    this.#sources = { stdout: lines("stdout"), stderr: lines("stderr") };
    const demuxer = new Demuxer((source, bytes) => this.#sources[source].push(bytes));
    this.#push = tty ? (bytes) => this.#sources.stdout.push(bytes) : (bytes) => demuxer.push(bytes);
  }

  push(bytes: Uint8Array): void {
    this.#push(bytes);
  }

  end(): void {
    this.#sources.stdout.end();
    this.#sources.stderr.end();
  }
}

/** `timestamps=1` puts the time before each line. */
export function splitTime(line: string): { time: string; text: string } {
  const space = line.indexOf(" ");
  return space > 0 && /^\d{4}-\d\d-\d\dT/.test(line) ? { time: line.slice(0, space), text: line.slice(space + 1) } : { time: "", text: line };
}
