// BuildKit's cache, as far as the engine's HTTP API tells of it. The history of builds speaks gRPC only.
import { engine } from "../backend/calls";
import type { BuildCache, DiskUsage } from "./types";

export const builds = {
  cache: async () => (await engine.get<DiskUsage>("/system/df", { type: "build-cache" })).BuildCache ?? [],
  prune: (all: boolean) => engine.post<{ SpaceReclaimed: number; CachesDeleted: string[] | null }>("/build/prune", { all }),
};

/** `[stage 2/5] RUN apt-get update` and `mount / from exec /bin/sh -c …` as the step that a person wrote. */
export function stepOf(record: BuildCache): string {
  return record.Description.replace(/^mount \/ from exec \/bin\/sh -c /, "RUN ").replace(/^pulled from /, "FROM ").trim();
}
