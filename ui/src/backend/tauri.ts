// The desktop window's front of the bridge: Tauri commands and channels.
import { Channel, invoke } from "@tauri-apps/api/core";
import { asError, type Answer, type Backend, type Platform, type Transfer } from "./types";

let last = 0;
const nextId = () => ++last;

async function command<T>(name: string, args?: Record<string, unknown>): Promise<T> {
  try {
    return await invoke<T>(name, args);
  } catch (thrown) {
    throw asError(thrown);
  }
}

const bytesOf = (message: ArrayBuffer | number[]): Uint8Array => new Uint8Array(message);

/** Runs a command that goes on until it ends or is cancelled. */
async function cancellable(name: string, args: Record<string, unknown>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) throw new DOMException("aborted", "AbortError");
  const id = nextId();
  const cancel = () => void invoke("bridge_cancel", { id });
  signal.addEventListener("abort", cancel, { once: true });
  try {
    await command(name, { id, ...args });
  } catch (thrown) {
    if (signal.aborted) throw new DOMException("aborted", "AbortError");
    throw thrown;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
  if (signal.aborted) throw new DOMException("aborted", "AbortError");
}

export const tauri: Backend = {
  request: (target, method, path, body) => command<Answer>("bridge_request", { target, method, path, body }),
  async stream(target, method, path, body, onChunk, signal) {
    const channel = new Channel<ArrayBuffer>();
    channel.onmessage = (message) => {
      if (!signal.aborted) onChunk(bytesOf(message));
    };
    await cancellable("bridge_stream", { target, method, path, body, channel }, signal);
  },
  async open(target, path, body, onBytes, onEnd) {
    const id = nextId();
    const channel = new Channel<ArrayBuffer>();
    channel.onmessage = (message) => {
      const bytes = bytesOf(message);
      // Nothing at all is the end.
      if (bytes.length === 0) onEnd();
      else onBytes(bytes);
    };
    await command("bridge_open", { id, target, method: "POST", path, body, channel });
    return {
      write: (bytes) => invoke("bridge_write", bytes, { headers: { "slipway-id": String(id) } }),
      closeWrite: () => command("bridge_close_write", { id }),
      close: () => command("bridge_close", { id }),
    };
  },
  async upload(method, path, hostFile, onProgress, onChunk, signal) {
    const channel = new Channel<Transfer>();
    channel.onmessage = (m) => {
      if (m.sent !== undefined) onProgress(m.sent, m.total ?? 0);
      if (m.chunk !== undefined) onChunk(m.chunk);
    };
    await cancellable("bridge_upload", { method, path, hostFile, channel }, signal);
  },
  async download(path, hostFile, onProgress, signal) {
    const channel = new Channel<Transfer>();
    channel.onmessage = (m) => {
      if (m.received !== undefined) onProgress(m.received);
    };
    await cancellable("bridge_download", { path, hostFile, channel }, signal);
  },
  chooseFile: (title, filters) => command("choose_file", { title, filters: filters ?? [] }),
  chooseSaveFile: (title, name) => command("choose_save_file", { title, name }),
  chooseFolder: (title) => command("choose_folder", { title }),
  openExternal: (url) => command("open_external", { url }),
  notify: (title, body) => command("notify", { title, body }),
  startDaemon: () => command("start_daemon"),
  platform: () => command<Platform>("platform"),
  buildHistory: (verb, reference) => command<string>("build_history", { verb, reference: reference ?? null }),
  async rebuild(rebuild, onChunk, signal) {
    const channel = new Channel<Transfer>();
    channel.onmessage = (m) => {
      if (m.chunk !== undefined && !signal.aborted) onChunk(m.chunk);
    };
    await cancellable("bridge_rebuild", { rebuild, channel }, signal);
  },
  autostart: () => command<boolean | null>("autostart"),
  setAutostart: (on) => command("set_autostart", { on }),
};
