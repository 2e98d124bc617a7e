// Builds: BuildKit's history through buildx, and its cache through the engine's API.
import { backend, type Rebuild } from "../backend";
import { engine } from "../backend/calls";
import { Lines } from "./lines";
import type { BuildCache, DiskUsage } from "./types";

/** A line of `history ls`. */
export interface Build {
  id: string;
  name: string;
  state: "running" | "done" | "failed" | "canceled";
  /** Milliseconds since the epoch. */
  started: number;
  /** None while it goes on. */
  ended: number | null;
  steps: number;
  cached: number;
}

/** What `history inspect` says, as far as it is shown. */
export interface BuildDetail {
  Name: string;
  Ref: string;
  Context?: string;
  Dockerfile?: string;
  Target?: string;
  VCSRepository?: string;
  VCSRevision?: string;
  Platform?: string[];
  StartedAt: string;
  CompletedAt?: string;
  Duration: number;
  Status: string;
  NumCompletedSteps: number;
  NumTotalSteps: number;
  NumCachedSteps: number;
  BuildArgs?: { Name: string; Value: string }[];
  Labels?: { Name: string; Value: string }[];
  Config?: { NoCache?: boolean };
  Attachments?: { Digest?: string }[];
  Error?: { Message?: string; Name?: string; Logs?: string[]; Sources?: string };
}

export interface Step {
  digest: string;
  name: string;
  /** Milliseconds that it took; none if it never began. */
  took: number | null;
  /** It was begun and has not ended. */
  running: boolean;
  cached: boolean;
  error: string;
  log: string;
}

const STATES: Record<string, Build["state"]> = { Running: "running", Completed: "done", Error: "failed", Canceled: "canceled" };

export function parseBuilds(text: string): Build[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => {
      const row = JSON.parse(line) as { ref: string; name: string; status: string; created_at: string; completed_at?: string; total_steps?: number; cached_steps?: number };
      return {
        // Builder and node stand before the id.
        id: row.ref.slice(row.ref.lastIndexOf("/") + 1),
        name: row.name,
        state: STATES[row.status] ?? "done",
        started: Date.parse(row.created_at),
        ended: row.completed_at ? Date.parse(row.completed_at) : null,
        steps: row.total_steps ?? 0,
        cached: row.cached_steps ?? 0,
      };
    });
}

interface RawProgress {
  vertexes?: { digest: string; name: string; started?: string; completed?: string; cached?: boolean; error?: string }[];
  logs?: { vertex: string; data: string }[];
}

/** BuildKit tells a step each time that it goes on: its last word holds, its first beginning counts. */
export class StepReader {
  #steps = new Map<string, Step & { started: number | null }>();
  #decoders = new Map<string, TextDecoder>();

  line(line: string): void {
    if (!line.startsWith("{")) return;
    const progress = JSON.parse(line) as RawProgress;
    for (const vertex of progress.vertexes ?? []) {
      const step = this.#steps.get(vertex.digest) ?? { digest: vertex.digest, name: vertex.name, took: null, running: false, cached: false, error: "", log: "", started: null };
      if (vertex.started) step.started ??= Date.parse(vertex.started);
      if (vertex.completed && step.started !== null) step.took = Date.parse(vertex.completed) - step.started;
      step.running = step.started !== null && !vertex.completed;
      step.cached ||= vertex.cached ?? false;
      step.error ||= vertex.error ?? "";
      this.#steps.set(vertex.digest, step);
    }
    for (const log of progress.logs ?? []) {
      const step = this.#steps.get(log.vertex);
      if (!step) continue;
      const decoder = this.#decoders.get(log.vertex) ?? new TextDecoder();
      this.#decoders.set(log.vertex, decoder);
      step.log += decoder.decode(bytesOf(log.data), { stream: true });
    }
  }

  /** In the order in which they began; those that have not, last. */
  steps(): Step[] {
    return [...this.#steps.values()].sort((a, b) => (a.started ?? Infinity) - (b.started ?? Infinity)).map(({ started: _, ...step }) => step);
  }
}

export function parseSteps(text: string): Step[] {
  const reader = new StepReader();
  for (const line of text.split("\n")) reader.line(line);
  return reader.steps();
}

const bytesOf = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

/** The Dockerfile's lines around the error, as BuildKit marks them. */
export const sourceOf = (detail: BuildDetail): string => (detail.Error?.Sources ? new TextDecoder().decode(bytesOf(detail.Error.Sources)).trim() : "");

export const builds = {
  history: async () => parseBuilds(await backend.buildHistory("ls")),
  inspect: async (id: string) => JSON.parse(await backend.buildHistory("inspect", id)) as BuildDetail,
  steps: async (id: string) => parseSteps(await backend.buildHistory("logs", id)),
  /** Tells all steps each time that one goes on. */
  async again(rebuild: Rebuild, onSteps: (steps: Step[]) => void, signal: AbortSignal) {
    const reader = new StepReader();
    const lines = new Lines((line) => reader.line(line));
    const encoder = new TextEncoder();
    const told = (chunk: string) => {
      lines.push(encoder.encode(chunk));
      onSteps(reader.steps());
    };
    await backend.rebuild(rebuild, told, signal);
  },
  forget: (id: string) => backend.buildHistory("rm", id),
  cache: async () => (await engine.get<DiskUsage>("/system/df", { type: "build-cache" })).BuildCache ?? [],
  prune: (all: boolean) => engine.post<{ SpaceReclaimed: number; CachesDeleted: string[] | null }>("/build/prune", { all }),
};

/** `[stage 2/5] RUN apt-get update` and `mount / from exec /bin/sh -c …` as the step that a person wrote. */
export function stepOf(record: BuildCache): string {
  return record.Description.replace(/^mount \/ from exec \/bin\/sh -c /, "RUN ").replace(/^pulled from /, "FROM ").trim();
}
