// Whether this is the first time: there is no data disk yet, and nobody said that they know already.
import { control } from "../backend/calls";
import type { Holdings } from "../backend";
import { machine } from "../state/machine.svelte";

const KEY = "slipway.met";

class FirstRun {
  on = $state(false);
  #asked = false;

  /** Asked once, when the daemon first answers. */
  begin(): void {
    $effect.root(() => {
      $effect(() => {
        if (this.#asked || !machine.status || localStorage.getItem(KEY)) return;
        this.#asked = true;
        if (machine.status.state !== "stopped") return this.end();
        void control.get<Holdings>("/holdings").then(
          (holdings) => (this.on = holdings.data_bytes == null),
          () => {},
        );
      });
    });
  }

  end(): void {
    this.on = false;
    localStorage.setItem(KEY, "1");
  }
}

export const firstRun = new FirstRun();
