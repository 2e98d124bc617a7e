// The bridge's HTTP front: for tests and plain browsers. Streams take a WebSocket each, because browsers open at most six
// HTTP/1.1 connections to one host and the page has more streams than that.
import { askForPath } from "./ask-path";
import {
  BackendError,
  asError,
  type Answer,
  type Backend,
  type Duplex,
  type Method,
  type Platform,
  type Problem,
  type Target,
  type Transfer,
} from "./types";
import { Lines } from "../engine/lines";

const aborted = () => new DOMException("aborted", "AbortError");

async function problemOf(response: Response): Promise<BackendError> {
  const text = await response.text();
  try {
    return new BackendError(JSON.parse(text) as Problem, response.status);
  } catch {
    return new BackendError({ code: "bridge", message: text || response.statusText }, response.status);
  }
}

async function post(path: string, body?: unknown): Promise<Response> {
  const json = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`/bridge/${path}`, { method: "POST", ...json });
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** The socket's first message says whether the target took the request; what follows is the answer's bytes. */
function socket(kind: "stream" | "open", target: Target, method: Method, path: string, body: unknown): WebSocket {
  const url = new URL(`/bridge/${kind}/${target}${path}`, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  // Appended by hand: the engine's own query must stay as it is.
  const own = `slipway-method=${method}` + (body === undefined ? "" : `&slipway-body=${encodeURIComponent(JSON.stringify(body))}`);
  const ws = new WebSocket(`${url.href}${url.search ? "&" : "?"}${own}`);
  ws.binaryType = "arraybuffer";
  return ws;
}

interface First {
  status?: number;
  error?: Problem;
}

const broken = () => new BackendError({ code: "stream-broken", message: "the connection broke" });

function stream(
  target: Target,
  method: Method,
  path: string,
  body: unknown,
  onChunk: (bytes: Uint8Array) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(aborted());
    const ws = socket("stream", target, method, path, body);
    const stop = () => {
      ws.close();
      reject(aborted());
    };
    signal.addEventListener("abort", stop, { once: true });
    ws.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (signal.aborted) return;
      if (typeof data !== "string") return onChunk(new Uint8Array(data));
      const first = JSON.parse(data) as First;
      if (first.error) {
        reject(new BackendError(first.error, first.status ?? null));
        ws.close();
      }
    };
    ws.onclose = (event) => {
      signal.removeEventListener("abort", stop);
      if (event.code === 1000) resolve();
      else reject(broken());
    };
  });
}

function open(
  target: Target,
  path: string,
  body: unknown,
  onBytes: (bytes: Uint8Array) => void,
  onEnd: () => void,
): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const ws = socket("open", target, "POST", path, body);
    const duplex: Duplex = {
      write: async (bytes) => ws.send(bytes as Uint8Array<ArrayBuffer>),
      closeWrite: async () => ws.send("close-write"),
      close: async () => ws.close(),
    };
    ws.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (typeof data !== "string") return onBytes(new Uint8Array(data));
      const first = JSON.parse(data) as First;
      if (first.error) reject(new BackendError(first.error, first.status ?? null));
      else resolve(duplex);
    };
    ws.onclose = () => {
      reject(broken());
      onEnd();
    };
  });
}

function transfer(path: string, query: Record<string, string>, onMessage: (message: Transfer) => void, signal: AbortSignal) {
  return told(`/bridge/${path}?${new URLSearchParams(query)}`, { method: "POST", signal }, onMessage);
}

async function told(path: string, request: RequestInit, onMessage: (message: Transfer) => void) {
  const response = await fetch(path, request);
  if (!response.ok || !response.body) throw await problemOf(response);
  let done = false;
  let failed: BackendError | null = null;
  const lines = new Lines((line) => {
    const message = JSON.parse(line) as Transfer;
    done ||= message.done ?? false;
    if (message.error) failed = new BackendError(message.error);
    onMessage(message);
  });
  const reader = response.body.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) lines.push(next.value);
  lines.end();
  if (failed) throw failed;
  if (!done) throw broken();
}

export const http: Backend = {
  async request(target, method, path, body): Promise<Answer> {
    const init: RequestInit = { method };
    if (body !== undefined) {
      init.headers = { "content-type": "application/json" };
      init.body = JSON.stringify(body);
    }
    let response: Response;
    try {
      response = await fetch(`/bridge/${target}${path}`, init);
    } catch (thrown) {
      throw new BackendError({ code: "bridge-unreachable", message: asError(thrown).message });
    }
    if (response.headers.has("x-slipway-problem")) throw await problemOf(response);
    const text = await response.text();
    const json = (response.headers.get("content-type") ?? "").includes("json");
    return { status: response.status, body: json && text ? (JSON.parse(text) as unknown) : text };
  },
  stream,
  open,
  upload(method, path, file, onProgress, onChunk, signal) {
    const onMessage = (m: Transfer) => {
      if (m.sent !== undefined) onProgress(m.sent, m.total ?? 0);
      if (m.chunk !== undefined) onChunk(m.chunk);
    };
    return transfer("upload", { path, file, method }, onMessage, signal);
  },
  download(path, file, onProgress, signal) {
    return transfer("download", { path, file }, (m) => m.received !== undefined && onProgress(m.received), signal);
  },
  chooseFile: (title) => askForPath(title, ""),
  chooseSaveFile: (title, name) => askForPath(title, name),
  chooseFolder: (title) => askForPath(title, ""),
  async openExternal(url) {
    window.open(url, "_blank", "noopener,noreferrer");
  },
  async notify(title, body) {
    if ("Notification" in window && Notification.permission === "granted") new Notification(title, { body });
  },
  async startDaemon() {
    await post("start-daemon");
  },
  async platform() {
    return (await (await post("platform")).json()) as Platform;
  },
  async buildHistory(verb, reference) {
    return (await post("build-history", { verb, reference: reference ?? null })).text();
  },
  rebuild(rebuild, onChunk, signal) {
    const request = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(rebuild), signal };
    return told("/bridge/rebuild", request, (m) => m.chunk !== undefined && onChunk(m.chunk));
  },
  async autostart() {
    return (await (await post("autostart")).json()) as boolean | null;
  },
  async setAutostart() {
    throw new BackendError({ code: "not-here", message: "a browser cannot be started with the computer" });
  },
};
