// Reads tar as it comes: the engine gives files of containers as tar. Knows ustar, pax and GNU's long names.

export interface TarEntry {
  name: string;
  /** The header's letter: `0` file, `2` link, `5` folder. */
  type: string;
  size: number;
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since the epoch. */
  mtime: number;
  link: string;
}

const BLOCK = 512;
const decoder = new TextDecoder();

function text(block: Uint8Array, from: number, length: number): string {
  const field = block.subarray(from, from + length);
  const end = field.indexOf(0);
  return decoder.decode(end < 0 ? field : field.subarray(0, end));
}

/** Octal, or base 256 where the first bit is set. */
function number(block: Uint8Array, from: number, length: number): number {
  if (block[from] & 0x80) {
    let value = block[from] & 0x7f;
    for (let i = 1; i < length; i++) value = value * 256 + block[from + i];
    return value;
  }
  return parseInt(text(block, from, length).trim() || "0", 8) || 0;
}

/** `27 path=some/name\n…` */
function pax(bytes: Uint8Array): Map<string, string> {
  const found = new Map<string, string>();
  let at = 0;
  while (at < bytes.length) {
    const space = bytes.indexOf(32, at);
    if (space < 0) break;
    const length = parseInt(decoder.decode(bytes.subarray(at, space)), 10);
    if (!(length > 0)) break;
    const record = decoder.decode(bytes.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    if (equals > 0) found.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return found;
}

export class TarReader {
  readonly #onEntry: (entry: TarEntry) => void;
  readonly #onData: (entry: TarEntry, bytes: Uint8Array) => void;
  readonly #header = new Uint8Array(BLOCK);
  #headerLength = 0;
  #entry: TarEntry | null = null;
  /** Bytes of content, and of padding behind it, that are still to come. */
  #left = 0;
  #padding = 0;
  #meta: Uint8Array[] | null = null;
  #metaType = "";
  #next = new Map<string, string>();

  constructor(onEntry: (entry: TarEntry) => void, onData: (entry: TarEntry, bytes: Uint8Array) => void = () => {}) {
    this.#onEntry = onEntry;
    this.#onData = onData;
  }

  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#left > 0) {
        const take = Math.min(this.#left, bytes.length - at);
        const part = bytes.subarray(at, at + take);
        if (this.#meta) this.#meta.push(part.slice());
        else if (this.#entry) this.#onData(this.#entry, part);
        this.#left -= take;
        at += take;
        if (this.#left === 0) this.#endOfContent();
      } else if (this.#padding > 0) {
        const take = Math.min(this.#padding, bytes.length - at);
        this.#padding -= take;
        at += take;
      } else {
        const take = Math.min(BLOCK - this.#headerLength, bytes.length - at);
        this.#header.set(bytes.subarray(at, at + take), this.#headerLength);
        this.#headerLength += take;
        at += take;
        if (this.#headerLength === BLOCK) this.#head();
      }
    }
  }

  #endOfContent(): void {
    if (!this.#meta) return;
    const whole = new Uint8Array(this.#meta.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.#meta) {
      whole.set(part, at);
      at += part.length;
    }
    this.#meta = null;
    if (this.#metaType === "x") this.#next = pax(whole);
    else if (this.#metaType === "L") this.#next.set("path", text(whole, 0, whole.length));
    else if (this.#metaType === "K") this.#next.set("linkpath", text(whole, 0, whole.length));
  }

  #head(): void {
    this.#headerLength = 0;
    const h = this.#header;
    // Blocks of nothing end the archive.
    if (h[0] === 0 && h.every((b) => b === 0)) return;
    const type = String.fromCharCode(h[156] || 48);
    const prefix = text(h, 257, 5) === "ustar" ? text(h, 345, 155) : "";
    const size = Number(this.#next.get("size") ?? number(h, 124, 12));
    this.#left = size;
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if (type === "x" || type === "g" || type === "L" || type === "K") {
      this.#metaType = type;
      this.#meta = [];
      this.#entry = null;
      if (size === 0) this.#endOfContent();
      return;
    }
    this.#entry = {
      name: this.#next.get("path") ?? (prefix ? `${prefix}/` : "") + text(h, 0, 100),
      type,
      size,
      mode: number(h, 100, 8),
      uid: number(h, 108, 8),
      gid: number(h, 116, 8),
      mtime: number(h, 136, 12),
      link: this.#next.get("linkpath") ?? text(h, 157, 100),
    };
    this.#next = new Map();
    // Links and folders have no content, whatever their size says.
    if (type !== "0" && type !== "7") this.#left = this.#padding = 0;
    this.#onEntry(this.#entry);
  }
}
