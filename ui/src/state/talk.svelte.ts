// What the page says to the person beside the screens: questions before something is lost, work that goes on, and what went wrong.
import { asError, backend, isAbort, type Problem } from "../backend";

export interface Question {
  title: string;
  /** One or two sentences. */
  body: string;
  /** What is lost, by name. */
  items?: string[];
  action: string;
  danger?: boolean;
  /** A choice beside the action, such as to take volumes too; and what is lost then instead. */
  option?: { label: string; on: boolean; items?: string[] };
}

class Asking {
  question = $state.raw<Question | null>(null);
  option = $state(false);
  #answer: ((yes: boolean) => void) | null = null;

  ask(question: Question): Promise<boolean> {
    this.#answer?.(false);
    this.question = question;
    this.option = question.option?.on ?? false;
    return new Promise((answer) => (this.#answer = answer));
  }

  answer(yes: boolean): void {
    this.question = null;
    this.#answer?.(yes);
    this.#answer = null;
  }
}

export const asking = new Asking();

export interface Note {
  id: number;
  kind: "done" | "failed" | "working";
  title: string;
  detail: string;
  hint: string | null;
  /** From 0 to 1; none while it is not known. */
  progress: number | null;
  cancel: (() => void) | null;
}

/** How a long work tells how far it is. */
export interface Work {
  signal: AbortSignal;
  say(detail: string, progress?: number | null): void;
}

class Notes {
  all = $state<Note[]>([]);
  #last = 0;

  #add(note: Omit<Note, "id">): Note {
    const id = ++this.#last;
    this.all.push({ ...note, id });
    return this.all[this.all.length - 1];
  }

  remove(id: number): void {
    this.all = this.all.filter((n) => n.id !== id);
  }

  done(title: string, detail = ""): void {
    const note = this.#add({ kind: "done", title, detail, hint: null, progress: null, cancel: null });
    setTimeout(() => this.remove(note.id), 5000);
  }

  failed(title: string, thrown: unknown): void {
    this.#add({ kind: "failed", title, progress: null, cancel: null, ...told(asError(thrown)) });
  }

  /** Long work with a name, a bar and a way to cancel it. Resolves to whether it was done. */
  async work(title: string, done: string, work: (w: Work) => Promise<void>): Promise<boolean> {
    const stop = new AbortController();
    const note = this.#add({ kind: "working", title, detail: "", hint: null, progress: null, cancel: () => stop.abort() });
    const say = (detail: string, progress: number | null = null) => {
      note.detail = detail;
      note.progress = progress;
    };
    try {
      await work({ signal: stop.signal, say });
      this.remove(note.id);
      this.done(done);
      if (document.visibilityState === "hidden") void backend.notify(done, "").catch(() => {});
      return true;
    } catch (thrown) {
      this.remove(note.id);
      if (!isAbort(thrown)) this.failed(title, thrown);
      return false;
    }
  }
}

export function told(problem: Problem): { detail: string; hint: string | null } {
  return { detail: [problem.message, ...(problem.causes ?? [])].join(": "), hint: problem.hint ?? null };
}

export const notes = new Notes();

/** A short act: what it fails with is told. Resolves to whether it was done. */
export async function act(title: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (thrown) {
    notes.failed(title, thrown);
    return false;
  }
}
