// What this computer listens on for containers, as the daemon tells it.
import type { Port } from "../backend";
import { jsonLines } from "../backend/calls";
import { machine } from "./machine.svelte";
import { following, visible } from "./visible.svelte";

class HostPorts {
  all = $state.raw<Port[]>([]);

  begin(): void {
    $effect.root(() => {
      $effect(() => {
        if (!machine.engineUp) this.all = [];
      });
      $effect(() => {
        if (!visible.on || !machine.engineUp) return;
        return following((signal, connected) => jsonLines<Port[]>("control", "/v1/ports/watch", (ports) => (connected(), (this.all = ports)), signal));
      });
    });
  }
}

export const hostPorts = new HostPorts();
