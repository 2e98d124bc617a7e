import { Kept } from "../../state/kept.svelte";

/** Builds as they were, or what they left behind for the next ones. */
export const view = new Kept<"history" | "cache">("builds.view", "history");
