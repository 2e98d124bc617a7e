// Looking at files in containers and volumes.
//
// What runs is looked at from the machine, by the kernel's own view of its root: that needs no program in the image. What
// does not run is read through the engine's archive, whole, because the engine has no way to list a folder.
import { asError, backend, isAbort } from "../backend";
import { query, segment } from "../backend/calls";
import { runInMachine } from "./exec";
import { TarReader } from "./tar";

export interface FileEntry {
  name: string;
  kind: "folder" | "file" | "link" | "other";
  size: number;
  /** Permission bits. */
  mode: number;
  owner: string;
  /** Seconds since the epoch. */
  mtime: number;
}

export interface FileSource {
  list(path: string, onProgress: (bytes: number) => void, signal: AbortSignal): Promise<FileEntry[]>;
  /** The beginning of a file, at most [`PREVIEW`] bytes. */
  read(path: string): Promise<Uint8Array>;
  /** Where a link leads, as a path of the same source. */
  follow(path: string): Promise<string>;
}

export const PREVIEW = 256 * 1024;

/** `/a/b` and `../c` make `/a/c`; nothing leads above the root. */
export function resolvePath(from: string, to: string): string {
  const parts = to.startsWith("/") ? [] : from.split("/").filter(Boolean);
  for (const part of to.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

export const joined = (folder: string, name: string): string => (folder === "/" ? `/${name}` : `${folder}/${name}`);
export const folderOf = (path: string): string => path.slice(0, path.lastIndexOf("/")) || "/";

// Walks part by part and follows no link: an absolute one would lead out of the container into the machine.
const WALK = `
root=$1 path=$2
cd -- "$root" || exit 1
set -f; IFS=/
for part in $path; do
  [ -z "$part" ] && continue
  if [ -L "./$part" ]; then echo "$part is a link" >&2; exit 1; fi
  cd -- "./$part" || exit 1
done
set +f; unset IFS
`;
// Names with a NUL after each, then a line for each with what it is: a name may hold anything but a NUL.
const LIST = `${WALK}
find . -mindepth 1 -maxdepth 1 -print0
printf '\\0'
find . -mindepth 1 -maxdepth 1 -exec stat -c '%f %s %Y %u %g' {} +`;
const READ = `${WALK}
[ -L "./$3" ] && exit 1
head -c ${PREVIEW} -- "./$3"`;
const LINK = `${WALK}
readlink -- "./$3"`;

const KINDS: Record<number, FileEntry["kind"]> = { 0o040000: "folder", 0o100000: "file", 0o120000: "link" };

export function parseListing(bytes: Uint8Array): FileEntry[] {
  const decoder = new TextDecoder();
  let end = 0;
  const names: string[] = [];
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== 0) continue;
    // An empty name is the end of the names.
    if (at === end) break;
    names.push(decoder.decode(bytes.subarray(end, at)).replace(/^\.\//, ""));
    end = at + 1;
  }
  const lines = decoder.decode(bytes.subarray(end + 1)).split("\n").filter(Boolean);
  // A folder that changed between the two looks: names alone are better than wrong sizes.
  const whole = lines.length === names.length;
  return names.map((name, i) => {
    const [mode, size, mtime, uid, gid] = whole ? lines[i].split(" ") : ["0", "0", "0", "?", "?"];
    const bits = parseInt(mode, 16);
    return { name, kind: KINDS[bits & 0o170000] ?? (whole ? "other" : "file"), size: Number(size), mode: bits & 0o7777, owner: `${uid}:${gid}`, mtime: Number(mtime) };
  });
}

/** Files below a folder of the machine. */
export class MachineFiles implements FileSource {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  #run(script: string, ...words: string[]): Promise<Uint8Array> {
    return runInMachine(["/bin/sh", "-c", script, "sh", this.#root, ...words]);
  }

  async list(path: string): Promise<FileEntry[]> {
    return parseListing(await this.#run(LIST, path));
  }

  read(path: string): Promise<Uint8Array> {
    return this.#run(READ, folderOf(path), path.slice(path.lastIndexOf("/") + 1));
  }

  async follow(path: string): Promise<string> {
    const target = new TextDecoder().decode(await this.#run(LINK, folderOf(path), path.slice(path.lastIndexOf("/") + 1)));
    return resolvePath(folderOf(path), target.replace(/\n$/, ""));
  }
}

/** Files of a running container. */
export const runningFiles = (pid: number): FileSource => new MachineFiles(`/proc/${pid}/root`);

/** Enough for any image that a person looks through; more than that is cut, and said. */
const MOST_ENTRIES = 400_000;

/** Files of a container that does not run: read once, then looked up. */
export class ArchivedFiles implements FileSource {
  readonly #id: string;
  #folders: Map<string, FileEntry[]> | null = null;
  #links = new Map<string, string>();
  cut = false;

  constructor(id: string) {
    this.#id = id;
  }

  async list(path: string, onProgress: (bytes: number) => void, signal: AbortSignal): Promise<FileEntry[]> {
    this.#folders ??= await this.#load(onProgress, signal);
    return this.#folders.get(path) ?? [];
  }

  async #load(onProgress: (bytes: number) => void, signal: AbortSignal): Promise<Map<string, FileEntry[]>> {
    const folders = new Map<string, FileEntry[]>();
    const enough = new AbortController();
    let bytes = 0;
    let count = 0;
    const reader = new TarReader((entry) => {
      const path = resolvePath("/", entry.name);
      if (path === "/") return;
      const kind = entry.type === "5" ? "folder" : entry.type === "2" ? "link" : entry.type === "0" || entry.type === "1" ? "file" : "other";
      const folder = folderOf(path);
      const file: FileEntry = { name: path.slice(path.lastIndexOf("/") + 1), kind, size: entry.size, mode: entry.mode & 0o7777, owner: `${entry.uid}:${entry.gid}`, mtime: entry.mtime };
      const siblings = folders.get(folder);
      if (siblings) siblings.push(file);
      else folders.set(folder, [file]);
      if (kind === "link") this.#links.set(path, entry.link);
      if (++count > MOST_ENTRIES) {
        this.cut = true;
        enough.abort();
      }
    });
    try {
      await archive(this.#id, "/", (chunk) => {
        bytes += chunk.length;
        reader.push(chunk);
        onProgress(bytes);
      }, AbortSignal.any([signal, enough.signal]));
    } catch (thrown) {
      if (!enough.signal.aborted || !isAbort(thrown)) throw thrown;
    }
    return folders;
  }

  read(path: string): Promise<Uint8Array> {
    return readFromArchive(this.#id, path);
  }

  async follow(path: string): Promise<string> {
    return resolvePath(folderOf(path), this.#links.get(path) ?? path);
  }
}

export const archivePath = (id: string, path: string): string => `/containers/${segment(id)}/archive${query({ path })}`;

const archive = (id: string, path: string, onChunk: (bytes: Uint8Array) => void, signal: AbortSignal) =>
  backend.stream("engine", "GET", archivePath(id, path), undefined, onChunk, signal);

/** The first file of the archive, as far as it is shown. */
async function readFromArchive(id: string, path: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const enough = new AbortController();
  const reader = new TarReader(
    () => {},
    (_entry, bytes) => {
      if (length >= PREVIEW) return enough.abort();
      parts.push(bytes.slice(0, PREVIEW - length));
      length += bytes.length;
    },
  );
  try {
    await archive(id, path, (chunk) => reader.push(chunk), enough.signal);
  } catch (thrown) {
    if (!enough.signal.aborted) throw asError(thrown);
  }
  const whole = new Uint8Array(Math.min(length, PREVIEW));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
