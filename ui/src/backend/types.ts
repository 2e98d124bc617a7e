// The one door to the host. Everything that the page knows of the world outside comes through `Backend`.
import type { components } from "./control.gen";

export type Schemas = components["schemas"];
export type Status = Schemas["Status"];
export type Phase = Schemas["Phase"];
export type Setting = Schemas["Setting"];
export type Port = Schemas["Port"];
export type Mounts = Schemas["Mounts"];
export type Mount = Schemas["Mount"];
export type Holdings = Schemas["Holdings"];
export type GuestImages = Schemas["GuestImages"];
export type Update = Schemas["Update"];
export type Updated = Schemas["Updated"];
export type DiskUse = Schemas["DiskUsage"];
export type DiskTrim = Schemas["DiskTrim"];
export type Check = Schemas["Check"];
export type DoctorReport = Schemas["DoctorReport"];
export type LogLine = Schemas["LogLine"];
export type MachineInfo = Schemas["Machine"];

/** The control API (`/v1/…` on `api.sock`) or the Docker engine's API (`docker.sock`). */
export type Target = "control" | "engine";
export type Method = "GET" | "POST" | "PUT" | "DELETE" | "HEAD";

/** What failed, why and what to do: the control API's problem, which the bridge uses too. */
export interface Problem {
  code: string;
  message: string;
  causes?: string[];
  hint?: string | null;
}

/** A problem as an exception. */
export class BackendError extends Error implements Problem {
  readonly code: string;
  readonly causes: string[];
  readonly hint: string | null;
  /** The answer's HTTP status, where there was an answer. */
  readonly status: number | null;

  constructor(problem: Problem, status: number | null = null) {
    super(problem.message);
    this.name = "BackendError";
    this.code = problem.code;
    this.causes = problem.causes ?? [];
    this.hint = problem.hint ?? null;
    this.status = status;
  }
}

export interface Answer {
  status: number;
  /** Parsed JSON, or text. */
  body: unknown;
}

/** A connection that was upgraded: an exec or attach. */
export interface Duplex {
  write(bytes: Uint8Array): Promise<void>;
  /** Ends our direction; the other goes on. */
  closeWrite(): Promise<void>;
  close(): Promise<void>;
}

export interface Platform {
  os: string;
  version: string;
  /** The folder of the person's docker configuration, for `POST /v1/start`. */
  dockerConfig: string | null;
  profile: string;
  /** Whether this is the desktop window, and no plain browser. */
  window: boolean;
}

export interface FileFilter {
  name: string;
  extensions: string[];
}

/** A build of the history once more. */
export interface Rebuild {
  reference: string;
  /** Name of the image; nothing: it gets none. */
  tag: string | null;
  /** Every step is done again. */
  noCache: boolean;
}

export interface Backend {
  /** Any status is an answer; only an unreachable target throws. */
  request(target: Target, method: Method, path: string, body?: unknown): Promise<Answer>;
  /** Ends with the answer; a status of 400 or more, and a break in the middle, throw. */
  stream(
    target: Target,
    method: Method,
    path: string,
    body: unknown,
    onChunk: (bytes: Uint8Array) => void,
    signal: AbortSignal,
  ): Promise<void>;
  open(
    target: Target,
    path: string,
    body: unknown,
    onBytes: (bytes: Uint8Array) => void,
    onEnd: () => void,
  ): Promise<Duplex>;
  /** Sends a file of the host to the engine. `onChunk` gets the engine's answer as it comes. */
  upload(
    method: "POST" | "PUT",
    path: string,
    hostFile: string,
    onProgress: (sent: number, total: number) => void,
    onChunk: (text: string) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Writes the engine's answer to a file of the host; one that is cut short is not left behind. */
  download(path: string, hostFile: string, onProgress: (received: number) => void, signal: AbortSignal): Promise<void>;
  chooseFile(title: string, filters?: FileFilter[]): Promise<string | null>;
  chooseSaveFile(title: string, name: string): Promise<string | null>;
  chooseFolder(title: string): Promise<string | null>;
  /** Opens the person's browser: http and https only. */
  openExternal(url: string): Promise<void>;
  notify(title: string, body: string): Promise<void>;
  /** Starts the daemon, or finds the one that runs. */
  startDaemon(): Promise<void>;
  platform(): Promise<Platform>;
  /** BuildKit's own history, which speaks no HTTP: the bridge asks buildx. Gives what buildx said. */
  buildHistory(verb: "ls" | "inspect" | "logs" | "rm", reference?: string): Promise<string>;
  /** Builds again what the history knows. `onChunk` gets what BuildKit says, in whole lines. */
  rebuild(rebuild: Rebuild, onChunk: (text: string) => void, signal: AbortSignal): Promise<void>;
  /** None where the host cannot start us by itself. */
  autostart(): Promise<boolean | null>;
  setAutostart(on: boolean): Promise<void>;
}

/** An upload's or download's messages, the same on both fronts. */
export interface Transfer {
  sent?: number;
  total?: number;
  received?: number;
  chunk?: string;
  error?: Problem;
  done?: boolean;
}

export function asError(thrown: unknown): BackendError {
  if (thrown instanceof BackendError) return thrown;
  if (typeof thrown === "object" && thrown !== null && "message" in thrown) {
    const { code, message, causes, hint } = thrown as Partial<Problem>;
    return new BackendError({ code: code ?? "page", message: String(message), causes, hint });
  }
  return new BackendError({ code: "page", message: String(thrown) });
}

/** Whether this is only the end of something that we ended ourselves. */
export const isAbort = (thrown: unknown): boolean => thrown instanceof DOMException && thrown.name === "AbortError";
