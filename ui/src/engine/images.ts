import { backend } from "../backend";
import { engine, imagePath, jsonLines, query } from "../backend/calls";
import { Lines } from "./lines";
import type { DiskUsage, HistoryEntry, Image, ImageDetail, ProgressLine } from "./types";

/** `registry:5000/a/b:tag` into its name and its tag. */
export function splitReference(reference: string): { name: string; tag: string } {
  const at = reference.lastIndexOf(":");
  return at > reference.lastIndexOf("/") ? { name: reference.slice(0, at), tag: reference.slice(at + 1) } : { name: reference, tag: "" };
}

export const tagsOf = (image: Image): string[] => (image.RepoTags ?? []).filter((t) => t !== "<none>:<none>");
export const shortId = (id: string): string => id.replace(/^sha256:/, "").slice(0, 12);

const failedLine = (line: ProgressLine) => line.error ?? line.errorDetail?.message;

/** Streams of progress end with 200 and an error in the last line. */
async function progress(path: string, onLine: (line: ProgressLine) => void, signal: AbortSignal, body?: unknown): Promise<void> {
  let failed: string | undefined;
  const seen = (line: ProgressLine) => {
    failed ??= failedLine(line);
    onLine(line);
  };
  await jsonLines("engine", path, seen, signal, "POST", body);
  if (failed) throw new Error(failed);
}

export const images = {
  list: () => engine.get<Image[]>("/images/json", { "shared-size": true }),
  inspect: (id: string) => engine.get<ImageDetail>(`/images/${imagePath(id)}/json`),
  history: (id: string) => engine.get<HistoryEntry[]>(`/images/${imagePath(id)}/history`),
  usage: () => engine.get<DiskUsage>("/system/df", { type: "image" }),
  tag: (id: string, repo: string, tag: string) => engine.post(`/images/${imagePath(id)}/tag`, { repo, tag }),
  remove: (id: string, force = false) => engine.delete(`/images/${imagePath(id)}`, { force }),
  prune: (all: boolean) =>
    engine.post<{ SpaceReclaimed: number; ImagesDeleted: unknown[] | null }>("/images/prune", { filters: { dangling: [String(!all)] } }),

  pull(reference: string, onLine: (line: ProgressLine) => void, signal: AbortSignal): Promise<void> {
    const { name, tag } = reference.includes("@") ? { name: reference, tag: "" } : splitReference(reference);
    const latest = reference.includes("@") ? undefined : tag || "latest";
    return progress(`/images/create${query({ fromImage: name, tag: latest })}`, onLine, signal);
  },
  push(reference: string, onLine: (line: ProgressLine) => void, signal: AbortSignal): Promise<void> {
    const { name, tag } = splitReference(reference);
    return progress(`/images/${imagePath(name)}/push${query({ tag: tag || "latest" })}`, onLine, signal, {});
  },
  async load(file: string, onProgress: (sent: number, total: number) => void, onLine: (line: ProgressLine) => void, signal: AbortSignal) {
    let failed: string | undefined;
    const lines = new Lines((text) => {
      if (text.trim() === "") return;
      const line = JSON.parse(text) as ProgressLine;
      failed ??= failedLine(line);
      onLine(line);
    });
    const encoder = new TextEncoder();
    await backend.upload("POST", "/images/load?quiet=1", file, onProgress, (text) => lines.push(encoder.encode(text)), signal);
    lines.end();
    if (failed) throw new Error(failed);
  },
  save: (names: string[], file: string, onProgress: (received: number) => void, signal: AbortSignal) =>
    backend.download(`/images/get?${names.map((n) => `names=${encodeURIComponent(n)}`).join("&")}`, file, onProgress, signal),
};
