// A build of the history that is done again: one at a time, whatever screen is shown meanwhile.
import { asError, isAbort, type Problem, type Rebuild } from "../../backend";
import { builds, type Build, type Step } from "../../engine/builds";

/** Where it is shown; no build of the history is called so. */
export const AGAIN = "again";
/** Between two pictures of the steps. */
const FRAME = 100;

class Again {
  /** What it is called, and how it is or ended; none before the first. */
  name = $state<string | null>(null);
  state = $state<Build["state"]>("done");
  steps = $state.raw<Step[]>([]);
  problem = $state.raw<Problem | null>(null);
  #stop = new AbortController();

  get running(): boolean {
    return this.name !== null && this.state === "running";
  }

  /** Resolves when it has ended, however. */
  async begin(name: string, rebuild: Rebuild): Promise<void> {
    this.#stop = new AbortController();
    this.name = name;
    this.state = "running";
    this.steps = [];
    this.problem = null;
    let told: Step[] = [];
    let due: ReturnType<typeof setTimeout> | undefined;
    const show = () => {
      due = undefined;
      this.steps = told;
    };
    try {
      await builds.again(rebuild, (steps) => ((told = steps), (due ??= setTimeout(show, FRAME))), this.#stop.signal);
      this.state = "done";
    } catch (thrown) {
      this.state = isAbort(thrown) ? "canceled" : "failed";
      if (!isAbort(thrown)) this.problem = asError(thrown);
    }
    clearTimeout(due);
    show();
  }

  cancel(): void {
    this.#stop.abort();
  }
}

export const again = new Again();
