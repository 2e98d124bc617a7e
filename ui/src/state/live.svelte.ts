// A list that the engine has, brought up to date by its events: never by a clock.
import { untrack } from "svelte";
import { asError, type Problem } from "../backend";

/** Milliseconds that events are gathered before the engine is asked: a `compose up` is one question, and not fifty. */
const GATHER = 60;

export class Live<T> {
  items = $state.raw<T[]>([]);
  loaded = $state(false);
  problem = $state.raw<Problem | null>(null);

  readonly #load: () => Promise<T[]>;
  readonly #part: ((ids: string[]) => Promise<T[]>) | null;
  readonly #id: (item: T) => string;
  #ids = new Set<string>();
  #all = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #loading = false;

  /** `part` asks for some alone; one that is not in its answer is gone. */
  constructor(id: (item: T) => string, load: () => Promise<T[]>, part?: (ids: string[]) => Promise<T[]>) {
    this.#id = id;
    this.#load = load;
    this.#part = part ?? null;
  }

  /** Something happened to this one; without an id: to who knows what. */
  touch(id?: string): void {
    if (id === undefined || !this.#part) this.#all = true;
    else this.#ids.add(id);
    this.#schedule();
  }

  clear(): void {
    this.items = [];
    this.loaded = false;
    this.problem = null;
  }

  #schedule(): void {
    if (this.#timer === null && !this.#loading) this.#timer = setTimeout(() => void this.refresh(), GATHER);
  }

  async refresh(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const ids = [...this.#ids];
    // Past some tens, all of them is the shorter question.
    const part = untrack(() => this.loaded) && !this.#all && ids.length > 0 && ids.length <= 50 ? this.#part : null;
    this.#ids.clear();
    this.#all = false;
    this.#loading = true;
    try {
      if (part) this.#merge(ids, await part(ids));
      else this.items = await this.#load();
      this.loaded = true;
      this.problem = null;
    } catch (thrown) {
      this.problem = asError(thrown);
    } finally {
      this.#loading = false;
      if (this.#all || this.#ids.size > 0) this.#schedule();
    }
  }

  #merge(ids: string[], found: T[]): void {
    const fresh = new Map(found.map((item) => [this.#id(item), item]));
    const asked = new Set(ids);
    const kept: T[] = [];
    for (const item of this.items) {
      const id = this.#id(item);
      if (!asked.has(id)) kept.push(item);
      else if (fresh.has(id)) kept.push(fresh.get(id) as T);
      fresh.delete(id);
    }
    // The engine lists what is new first.
    this.items = [...fresh.values(), ...kept];
  }
}
