// What can be done with containers, and how one is described to a person.
import { backend } from "../backend";
import { engine, jsonLines, query, segment } from "../backend/calls";
import { OutputLines, type Source } from "./logs";
import type { Container, ContainerDetail, StatsLine } from "./types";

export const PROJECT = "com.docker.compose.project";
export const SERVICE = "com.docker.compose.service";

export const nameOf = (c: Container): string => c.Names?.[0]?.replace(/^\//, "") ?? c.Id.slice(0, 12);
export const projectOf = (c: Container): string | null => c.Labels?.[PROJECT] ?? null;
export const isUp = (c: Container): boolean => c.State === "running" || c.State === "paused" || c.State === "restarting";

export type Action = "start" | "stop" | "restart" | "pause" | "unpause" | "kill";

export const containers = {
  list: (ids?: string[]) =>
    engine.get<Container[]>("/containers/json", { all: true, filters: ids ? { id: ids } : undefined }),
  inspect: (id: string) => engine.get<ContainerDetail>(`/containers/${segment(id)}/json`),
  act: (id: string, action: Action) => engine.post(`/containers/${segment(id)}/${action}`),
  remove: (id: string, volumes = false) => engine.delete(`/containers/${segment(id)}`, { force: true, v: volumes }),
  rename: (id: string, name: string) => engine.post(`/containers/${segment(id)}/rename`, { name }),
  changes: (id: string) => engine.get<{ Path: string; Kind: 0 | 1 | 2 }[] | null>(`/containers/${segment(id)}/changes`),
  prune: () => engine.post<{ SpaceReclaimed: number; ContainersDeleted: string[] | null }>("/containers/prune"),

  /** Creates and starts; one that does not start is left for the person to look at. */
  async run(name: string, config: object): Promise<string> {
    const created = await engine.post<{ Id: string }>("/containers/create", { name: name || undefined }, config);
    await containers.act(created.Id, "start");
    return created.Id;
  },

  stats: (id: string, onStats: (line: StatsLine) => void, signal: AbortSignal) =>
    jsonLines("engine", `/containers/${segment(id)}/stats?stream=1`, onStats, signal),

  /** Lines with their time before them. Whether it has a terminal is asked where the caller does not know. */
  async logs(id: string, tty: boolean | null, tail: number | "all", since: string | undefined, follow: boolean, onLine: (source: Source, line: string) => void, signal: AbortSignal) {
    const lines = new OutputLines(tty ?? (await containers.inspect(id)).Config.Tty, onLine);
    const path = `/containers/${segment(id)}/logs` + query({ stdout: 1, stderr: 1, timestamps: 1, follow: follow ? 1 : 0, tail, since });
    await backend.stream("engine", "GET", path, undefined, (bytes) => lines.push(bytes), signal);
    lines.end();
  },
};

/** Where a published port can be opened, if it speaks TCP. */
export interface Published {
  host: number;
  container: number;
  protocol: string;
  url: string | null;
}

/** Each port once, although it is bound on IPv4 and IPv6. */
export function publishedPorts(c: Container): Published[] {
  const found = new Map<string, Published>();
  for (const port of c.Ports ?? []) {
    if (!port.PublicPort) continue;
    const any = !port.IP || port.IP === "0.0.0.0" || port.IP === "::";
    const address = any ? "localhost" : port.IP?.includes(":") ? `[${port.IP}]` : port.IP;
    const url = port.Type === "tcp" ? `${port.PrivatePort === 443 ? "https" : "http"}://${address}:${port.PublicPort}` : null;
    const key = `${port.PublicPort}/${port.Type}`;
    if (!found.has(key)) found.set(key, { host: port.PublicPort, container: port.PrivatePort, protocol: port.Type, url });
  }
  return [...found.values()].sort((a, b) => a.host - b.host);
}

export type Tone = "good" | "warn" | "bad" | "idle" | "busy";

/** The state with its reason, from the engine's own words. */
export function toneOf(c: Container): Tone {
  switch (c.State) {
    case "running":
      if (c.Status.includes("(unhealthy)")) return "bad";
      return c.Status.includes("(health: starting)") ? "busy" : "good";
    case "paused":
      return "warn";
    case "restarting":
    case "removing":
      return "busy";
    case "dead":
      return "bad";
    case "exited": {
      const code = exitCode(c);
      // 143 and 130 are what a program that was asked to stop ends with.
      return code === 0 || code === 143 || code === 130 ? "idle" : "bad";
    }
    default:
      return "idle";
  }
}

export function exitCode(c: Container): number | null {
  const found = /\((\d+)\)/.exec(c.Status);
  return found ? Number(found[1]) : null;
}
