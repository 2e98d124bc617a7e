import { describe, expect, it } from "vitest";
import { marked, plain, spans } from "./ansi";
import { expression, LogBuffer, ranges, rowsOf } from "./log-buffer";
import { Offsets, rowsInSight } from "./window";

describe("rows in sight", () => {
  it("are few of many, at every place", () => {
    expect(rowsInSight(0, 500, 50, 1000, 2)).toEqual({ from: 0, to: 12 });
    expect(rowsInSight(49_500, 500, 50, 1000, 2)).toEqual({ from: 988, to: 1000 });
    // Scrolled beyond what is left after a removal.
    expect(rowsInSight(49_500, 500, 50, 3, 2)).toEqual({ from: 3, to: 3 });
    expect(rowsInSight(0, 0, 50, 0)).toEqual({ from: 0, to: 0 });
  });
  it("of many heights are found by their place", () => {
    const offsets = new Offsets();
    for (const height of [1, 3, 1, 2]) offsets.push(height);
    expect([0, 1, 2, 3, 4, 5, 6, 99].map((place) => offsets.at(place))).toEqual([0, 1, 1, 1, 2, 3, 3, 3]);
    expect(offsets.total).toBe(7);
  });
});

describe("colours of terminals", () => {
  it("become classes, and everything else that is no text goes", () => {
    expect(spans("a\x1b[31;1mred\x1b[0m b")).toEqual([{ text: "a", style: "" }, { text: "red", style: "ansi-red ansi-bold" }, { text: " b", style: "" }]);
    expect(spans("\x1b[38;5;196mx\x1b[38;2;0;200;0my")).toEqual([{ text: "x", style: "ansi-red" }, { text: "y", style: "ansi-green" }]);
    expect(plain("\x1b]0;title\x07\x1b[2Ka\x1b[1;1Hb\x00c")).toBe("abc");
    expect(spans("<img src=x onerror=alert(1)>")).toEqual([{ text: "<img src=x onerror=alert(1)>", style: "" }]);
  });
  it("are kept where a search found something", () => {
    const found = marked(spans("ab\x1b[31mcd\x1b[0mef"), [[1, 3], [5, 6]]);
    expect(found.map((s) => [s.text, s.hit])).toEqual([["a", false], ["b", true], ["c", true], ["d", false], ["e", false], ["f", true]]);
  });
});

describe("a log's lines", () => {
  const line = (text: string) => ({ time: "", from: "", text, stderr: false });
  it("are at most so many, and keep their numbers", () => {
    const buffer = new LogBuffer(100);
    for (let i = 0; i < 250; i++) buffer.add([line(String(i))]);
    expect(buffer.lines.length).toBeLessThanOrEqual(100);
    expect(buffer.lines.at(-1)).toMatchObject({ n: 249, plain: "249" });
    expect(buffer.lines[0].n).toBe(250 - buffer.lines.length);
  });
  it("are searched by words and by expressions, and a half-written one finds nothing", () => {
    const of = (words: string, regex: boolean) => {
      const what = expression(words, regex);
      return what ? ranges("a.b (x) A.B", what) : null;
    };
    expect(of("a.b", false)).toEqual([[0, 3], [8, 11]]);
    expect(of("[xb]", true)).toEqual([[2, 3], [5, 6], [10, 11]]);
    expect(of("(", true)).toBeNull();
    expect(of("(", false)).toEqual([[4, 5]]);
    expect(of("x*", true)).toEqual([[5, 6]]);
  });
  it("take as many rows as their width needs", () => {
    expect(rowsOf("", 10)).toBe(1);
    expect(rowsOf("x".repeat(21), 10)).toBe(3);
    expect(rowsOf("漢".repeat(6), 10)).toBe(2);
    expect(rowsOf("x".repeat(500), 0)).toBe(1);
  });
});
