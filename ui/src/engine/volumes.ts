import { engine, segment } from "../backend/calls";
import type { DiskUsage, Network, Volume } from "./types";

export const volumes = {
  list: async () => (await engine.get<{ Volumes: Volume[] | null }>("/volumes")).Volumes ?? [],
  /** With sizes: the engine reads all files for that. */
  usage: async () => (await engine.get<DiskUsage>("/system/df", { type: "volume" })).Volumes ?? [],
  create: (name: string, labels: Record<string, string> = {}) =>
    engine.post<Volume>("/volumes/create", {}, { Name: name || undefined, Labels: labels }),
  remove: (name: string) => engine.delete(`/volumes/${segment(name)}`),
  prune: (all: boolean) =>
    engine.post<{ SpaceReclaimed: number; VolumesDeleted: string[] | null }>("/volumes/prune", all ? { filters: { all: ["true"] } } : {}),
};

export const networks = {
  list: () => engine.get<Network[]>("/networks"),
  inspect: (id: string) => engine.get<Network>(`/networks/${segment(id)}`),
  create: (config: object) => engine.post<{ Id: string; Warning?: string }>("/networks/create", {}, config),
  connect: (id: string, container: string) => engine.post(`/networks/${segment(id)}/connect`, {}, { Container: container }),
  disconnect: (id: string, container: string) =>
    engine.post(`/networks/${segment(id)}/disconnect`, {}, { Container: container, Force: true }),
  remove: (id: string) => engine.delete(`/networks/${segment(id)}`),
  prune: () => engine.post<{ NetworksDeleted: string[] | null }>("/networks/prune"),
};

/** Networks that the engine makes itself and that cannot be removed. */
export const isBuiltIn = (n: Network): boolean => ["bridge", "host", "none", "docker_gwbridge", "ingress"].includes(n.Name);
