// A layer's `CreatedBy` as the instruction of the Dockerfile that it came from.

export function instruction(createdBy: string): [word: string, rest: string] {
  const text = createdBy.replace(/\s*# buildkit\s*$/, "").trim();
  const nop = /^\/bin\/sh -c #\(nop\)\s+(.*)$/s.exec(text);
  const said = nop ? nop[1].trim() : text.replace(/^\/bin\/sh -c /, "RUN ").replace(/^RUN RUN /, "RUN ").replace(/^RUN \/bin\/sh -c /, "RUN ");
  const found = /^([A-Z]+)\s+([\s\S]*)$/.exec(said);
  return found ? [found[1], found[2]] : ["", said];
}
