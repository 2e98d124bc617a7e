// The lines of a log view: at most so many, the oldest go first; and what a search finds in them.
import { plain } from "./ansi";

export interface Line {
  /** Counts up for ever, so that a line keeps its key when older ones go. */
  n: number;
  time: string;
  /** Whose line it is, where there are several. */
  from: string;
  text: string;
  stderr: boolean;
  /** Without colours, as it is searched and copied. */
  plain: string;
}

export const MOST = 100_000;

const tabs = (text: string) => (text.includes("\t") ? text.replaceAll("\t", "        ") : text);

export class LogBuffer {
  lines: Line[] = [];
  #next = 0;
  readonly #most: number;

  constructor(most = MOST) {
    this.#most = most;
  }

  /** Adds lines; gives how many of the oldest went. */
  add(fresh: { time: string; from: string; text: string; stderr: boolean }[]): number {
    for (const line of fresh) {
      const text = tabs(line.text);
      this.lines.push({ ...line, text, plain: plain(text), n: this.#next++ });
    }
    // A tenth at a time: dropping one for each new line would move all of them each time.
    if (this.lines.length <= this.#most) return 0;
    const drop = this.lines.length - Math.floor(this.#most * 0.9);
    this.lines = this.lines.slice(drop);
    return drop;
  }

  clear(): void {
    this.lines = [];
  }
}

/** The person's words as an expression; as a regular expression only if they ask for it and it is one. */
export function expression(words: string, regex: boolean): RegExp | null {
  if (words === "") return null;
  try {
    return new RegExp(regex ? words : words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  } catch {
    return null;
  }
}

export function ranges(text: string, what: RegExp): [from: number, to: number][] {
  const found: [number, number][] = [];
  for (const match of text.matchAll(what)) {
    if (match[0] !== "") found.push([match.index, match.index + match[0].length]);
    if (found.length >= 100) break;
  }
  return found;
}

/** Lines of a fixed-width font that a text takes; wide characters take two places. */
export function rowsOf(text: string, columns: number): number {
  if (columns <= 0) return 1;
  let places = text.length;
  if (/[^\x00-\u02ff]/.test(text)) {
    places = 0;
    for (const c of text) places += (c.codePointAt(0) ?? 0) > 0x10ff ? 2 : 1;
  }
  return Math.max(1, Math.ceil(places / columns));
}
