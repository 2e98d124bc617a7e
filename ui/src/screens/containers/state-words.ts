// A container's state as words, with its reason.
import { exitCode } from "../../engine/containers";
import type { Container } from "../../engine/types";
import { t } from "../../texts";

const x = t.containers;

/** The engine's `Exited (137) 2 hours ago` and `Up 3 minutes (unhealthy)`, said in ours. */
export function stateWords(c: Container): string {
  if (c.State === "exited") {
    const code = exitCode(c) ?? 0;
    const ago = c.Status.replace(/^Exited \(\d+\)\s*/, "");
    const reason = x.exitReason[code];
    return x.exited(code, ago) + (reason ? ` (${reason})` : "");
  }
  if (c.State === "running") {
    if (c.Status.includes("(unhealthy)")) return `${x.unhealthy}, ${c.Status.replace(/\s*\(.*\)/, "").toLowerCase()}`;
    return c.Status.replace("(health: starting)", "").replace("(healthy)", "").replace(" About", " about").trim();
  }
  return x.state[c.State] ?? c.State;
}
