// The machine's state, as the daemon tells it: the one source that CLI and tray have too.
import { asError, backend, type Platform, type Problem, type Status } from "../backend";
import { control, jsonLines } from "../backend/calls";
import { following, visible } from "./visible.svelte";

class Machine {
  status = $state.raw<Status | null>(null);
  /** Why the daemon does not answer. */
  unreachable = $state.raw<Problem | null>(null);
  /** Why the last start or stop was refused. */
  refused = $state.raw<Problem | null>(null);
  busy = $state(false);
  /** Another guest image is on its way in. */
  updating = $state(false);
  platform = $state.raw<Platform | null>(null);

  /** Whether the engine can be asked. */
  get engineUp(): boolean {
    const state = this.status?.state;
    return (state === "running" || state === "degraded") && this.status?.engine != null;
  }

  /** Follows for as long as the page lives. */
  begin(): void {
    void this.#hello();
    $effect.root(() => {
      $effect(() => {
        if (!visible.on) return;
        return following(
          (signal, connected) =>
            jsonLines<Status>("control", "/v1/status/watch", (status) => {
              connected();
              this.status = status;
              this.unreachable = null;
            }, signal),
          (thrown) => (this.unreachable = asError(thrown)),
        );
      });
    });
  }

  async #hello(): Promise<void> {
    try {
      this.platform = await backend.platform();
    } catch (thrown) {
      this.unreachable = asError(thrown);
    }
  }

  async startDaemon(): Promise<void> {
    await this.#act(() => backend.startDaemon());
  }

  async start(): Promise<void> {
    await this.#act(async () => {
      if (this.unreachable) await backend.startDaemon();
      await control.post("/start", { docker_config: this.platform?.dockerConfig ?? null });
    });
  }

  async stop(force = false): Promise<void> {
    await this.#act(() => control.post("/stop", { force }));
  }

  async pause(): Promise<void> {
    await this.#act(() => control.post("/pause"));
  }

  async resume(): Promise<void> {
    await this.#act(() => control.post("/resume"));
  }

  async restart(): Promise<void> {
    await this.#act(async () => {
      await control.post("/stop", {});
      await this.until((status) => status.state === "stopped" || status.state === "failed");
      await control.post("/start", { docker_config: this.platform?.dockerConfig ?? null });
    });
  }

  /** Waits for the watch to tell of such a state: for at most two minutes, more than the daemon itself gives a stop. */
  until(reached: (status: Status) => boolean): Promise<void> {
    const deadline = Date.now() + 120_000;
    return new Promise((resolve, reject) => {
      const stop = $effect.root(() => {
        $effect(() => {
          if (!this.status || !reached(this.status)) return;
          done(resolve);
        });
      });
      const timer = setTimeout(() => done(() => reject(new Error("the machine did not get there in two minutes"))), deadline - Date.now());
      const done = (then: () => void) => {
        clearTimeout(timer);
        queueMicrotask(stop);
        then();
      };
    });
  }

  async #act(work: () => Promise<unknown>): Promise<void> {
    this.busy = true;
    this.refused = null;
    try {
      await work();
    } catch (thrown) {
      this.refused = asError(thrown);
    } finally {
      this.busy = false;
    }
  }
}

export const machine = new Machine();
