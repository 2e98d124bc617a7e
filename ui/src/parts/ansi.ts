// Colours of terminals in lines of logs. What is no colour is left out: a log line moves no cursor.

export interface Span {
  text: string;
  /** A CSS class list, or nothing. */
  style: string;
}

// CSI sequences, OSC sequences to their end, and lone control characters other than the tab.
const CONTROL = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]/g;
const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

export const plain = (line: string): string => (/[\x00-\x08\x0b-\x1f\x7f]/.test(line) ? line.replace(CONTROL, "") : line);

interface Pen {
  color: string;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
}

const fresh = (): Pen => ({ color: "", bold: false, dim: false, italic: false, underline: false });

const classes = (pen: Pen): string =>
  [pen.color && `ansi-${pen.color}`, pen.bold && "ansi-bold", pen.dim && "ansi-dim", pen.italic && "ansi-italic", pen.underline && "ansi-underline"]
    .filter(Boolean)
    .join(" ");

/** The 256 colours by the nearest of the eight: a log stays readable in both themes. */
function nearest(n: number): string {
  if (n < 8) return NAMES[n];
  if (n < 16) return NAMES[n - 8];
  if (n > 231) return n < 244 ? "black" : "white";
  const c = n - 16;
  return ofRgb(Math.floor(c / 36) * 51, (Math.floor(c / 6) % 6) * 51, (c % 6) * 51);
}

function ofRgb(r: number, g: number, b: number): string {
  const top = Math.max(r, g, b);
  const bit = (v: number) => (v > top * 0.6 && v > 60 ? 1 : 0);
  return NAMES[bit(r) + 2 * bit(g) + 4 * bit(b)];
}

function apply(pen: Pen, codes: number[]): Pen {
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i];
    if (code === 0) pen = fresh();
    else if (code === 1) pen.bold = true;
    else if (code === 2) pen.dim = true;
    else if (code === 3) pen.italic = true;
    else if (code === 4) pen.underline = true;
    else if (code === 22) pen.bold = pen.dim = false;
    else if (code === 23) pen.italic = false;
    else if (code === 24) pen.underline = false;
    else if (code >= 30 && code <= 37) pen.color = NAMES[code - 30];
    else if (code >= 90 && code <= 97) pen.color = NAMES[code - 90];
    else if (code === 39) pen.color = "";
    else if (code === 38 || code === 48) {
      const of256 = codes[i + 1] === 5;
      if (code === 38) pen.color = of256 ? nearest(codes[i + 2] ?? 7) : ofRgb(codes[i + 2] ?? 0, codes[i + 3] ?? 0, codes[i + 4] ?? 0);
      i += of256 ? 2 : 4;
    }
  }
  return pen;
}

export function spans(line: string): Span[] {
  if (!line.includes("\x1b")) return [{ text: plain(line), style: "" }];
  const found: Span[] = [];
  let pen = fresh();
  let from = 0;
  const add = (text: string) => {
    if (text === "") return;
    const style = classes(pen);
    const last = found[found.length - 1];
    if (last?.style === style) last.text += text;
    else found.push({ text, style });
  };
  for (const match of line.matchAll(CONTROL)) {
    add(line.slice(from, match.index));
    from = match.index + match[0].length;
    const sgr = /^\x1b\[([\d;]*)m$/.exec(match[0]);
    if (sgr) pen = apply(pen, sgr[1] === "" ? [0] : sgr[1].split(";").map(Number));
  }
  add(line.slice(from));
  return found.length > 0 ? found : [{ text: "", style: "" }];
}

/** Cuts spans where a search found something. */
export function marked(line: Span[], ranges: [from: number, to: number][]): (Span & { hit: boolean })[] {
  const out: (Span & { hit: boolean })[] = [];
  let at = 0;
  let next = 0;
  for (const span of line) {
    let from = 0;
    while (from < span.text.length) {
      while (next < ranges.length && ranges[next][1] <= at + from) next++;
      const range = ranges[next];
      const place = at + from;
      const hit = range !== undefined && range[0] <= place;
      const end = range === undefined ? span.text.length : (hit ? range[1] : range[0]) - at;
      const to = Math.min(span.text.length, end);
      out.push({ text: span.text.slice(from, to), style: span.style, hit });
      from = to;
    }
    at += span.text.length;
  }
  return out;
}
