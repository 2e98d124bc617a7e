// Nothing is streamed for a window that nobody sees. What follows the host asks here, and ends and begins with it.
import { untrack } from "svelte";
import { isAbort } from "../backend";

class Visibility {
  on = $state(document.visibilityState !== "hidden");
  constructor() {
    document.addEventListener("visibilitychange", () => (this.on = document.visibilityState !== "hidden"));
  }
}

export const visible = new Visibility();

const pause = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

/**
 * Runs `follow` while the window is seen, and again after it ended or broke, later and later up to 5 s.
 * Call it in an effect or with an own signal; the effect's end ends it.
 */
export function following(follow: (signal: AbortSignal, connected: () => void) => Promise<void>, broke?: (thrown: unknown) => void): () => void {
  const stop = new AbortController();
  void (async () => {
    let wait = 250;
    while (!stop.signal.aborted) {
      try {
        // What `follow` reads on its way is no reason for the calling effect to run again.
        await untrack(() => follow(stop.signal, () => (wait = 250)));
      } catch (thrown) {
        if (!isAbort(thrown)) broke?.(thrown);
      }
      if (stop.signal.aborted) return;
      await pause(wait, stop.signal);
      wait = Math.min(wait * 2, 5000);
    }
  })();
  return () => stop.abort();
}
