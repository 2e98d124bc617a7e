// What happy-dom lacks and every component asks for.
import { afterEach } from "vitest";
import { cleanup } from "@testing-library/svelte";

window.matchMedia ??= ((query: string) => ({ matches: false, media: query, addEventListener() {}, removeEventListener() {} })) as unknown as typeof window.matchMedia;
afterEach(() => cleanup());
