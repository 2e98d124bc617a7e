// The list of containers as rows: filtered, sorted and, if wanted, below their Compose projects.
import { isUp, nameOf, projectOf, SERVICE, toneOf, type Tone } from "../../engine/containers";
import type { Container } from "../../engine/types";
import type { Sort } from "../../parts/List.svelte";

export interface Group {
  kind: "group";
  name: string;
  members: Container[];
  up: number;
  tone: Tone;
  open: boolean;
}
export interface Single {
  kind: "container";
  container: Container;
  /** Shown below its project. */
  below: boolean;
}
export type Row = Group | Single;

export const keyOf = (row: Row): string => (row.kind === "group" ? `project/${row.name}` : row.container.Id);

export interface View {
  words: string;
  onlyRunning: boolean;
  grouped: boolean;
  closed: ReadonlySet<string>;
  sort: Sort;
}

/** All words must be in its name, image, project, id or ports. */
export function matches(c: Container, words: string): boolean {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return true;
  const ports = (c.Ports ?? []).map((p) => p.PublicPort ?? "").join(" ");
  const text = `${nameOf(c)} ${c.Image} ${projectOf(c) ?? ""} ${c.Id} ${ports} ${c.State}`.toLowerCase();
  return wanted.every((word) => text.includes(word));
}

const ORDER: Record<string, number> = { running: 0, paused: 1, restarting: 2, created: 3, exited: 4, removing: 5, dead: 6 };
const collator = new Intl.Collator(undefined, { numeric: true });

export function compare(sort: Sort): (a: Container, b: Container) => number {
  const sign = sort.down ? -1 : 1;
  const byName = (a: Container, b: Container) => collator.compare(nameOf(a), nameOf(b));
  switch (sort.by) {
    case "state":
      return (a, b) => sign * (ORDER[a.State] - ORDER[b.State]) || byName(a, b);
    case "created":
      return (a, b) => sign * (b.Created - a.Created) || byName(a, b);
    default:
      return (a, b) => sign * byName(a, b);
  }
}

/** The worst that a member says; idle only if all are. */
export function groupTone(members: Container[]): Tone {
  const tones = members.map(toneOf);
  return (["bad", "busy", "warn", "good"] as const).find((tone) => tones.includes(tone)) ?? "idle";
}

export function rowsOf(all: Container[], view: View): Row[] {
  const shown = all.filter((c) => (!view.onlyRunning || isUp(c)) && matches(c, view.words)).sort(compare(view.sort));
  const single = (container: Container, below: boolean): Single => ({ kind: "container", container, below });
  if (!view.grouped) return shown.map((c) => single(c, false));
  const projects = new Map<string, Container[]>();
  const alone: Container[] = [];
  for (const c of shown) {
    const project = projectOf(c);
    if (project === null) alone.push(c);
    else projects.set(project, [...(projects.get(project) ?? []), c]);
  }
  const names = [...projects.keys()].sort((a, b) => collator.compare(a, b));
  const rows: Row[] = [];
  for (const name of names) {
    const members = projects.get(name) ?? [];
    const open = !view.closed.has(name);
    rows.push({ kind: "group", name, members, up: members.filter(isUp).length, tone: groupTone(members), open });
    if (open) rows.push(...members.map((c) => single(c, true)));
  }
  return [...rows, ...alone.map((c) => single(c, false))];
}

/** Below its project a container goes by its service. */
export const shownName = (c: Container, below: boolean): string => (below ? (c.Labels?.[SERVICE] ?? nameOf(c)) : nameOf(c));
