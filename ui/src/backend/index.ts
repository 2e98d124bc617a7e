import { http } from "./http";
import { tauri } from "./tauri";
import type { Backend } from "./types";

export * from "./types";
export const backend: Backend = "__TAURI_INTERNALS__" in window ? tauri : http;
