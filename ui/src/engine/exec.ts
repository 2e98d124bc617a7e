// Shells: in a container through the engine, in the machine through the control API.
import { BackendError, asError, backend, type Problem } from "../backend";
import { engine, segment } from "../backend/calls";

export interface Shell {
  write(bytes: Uint8Array): Promise<void>;
  resize(rows: number, columns: number): Promise<void>;
  close(): Promise<void>;
}

/** The best shell there is; an image without any says so itself. */
const SHELL = ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh"];

export async function containerShell(
  id: string,
  user: string,
  rows: number,
  columns: number,
  onBytes: (bytes: Uint8Array) => void,
  onEnd: (why: string) => void,
): Promise<Shell> {
  const created = await engine.post<{ Id: string }>(`/containers/${segment(id)}/exec`, {}, {
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: true,
    ConsoleSize: [rows, columns],
    Env: ["TERM=xterm-256color"],
    Cmd: SHELL,
    User: user || undefined,
  });
  const exec = `/exec/${segment(created.Id)}`;
  const ended = async () => {
    try {
      const { ExitCode } = await engine.get<{ ExitCode: number | null }>(`${exec}/json`);
      onEnd(`exit ${ExitCode ?? "?"}`);
    } catch (thrown) {
      onEnd(asError(thrown).message);
    }
  };
  const duplex = await backend.open("engine", `${exec}/start`, { Detach: false, Tty: true }, onBytes, () => void ended());
  return {
    write: (bytes) => duplex.write(bytes),
    resize: async (h, w) => void (await engine.post(`${exec}/resize`, { h, w })),
    close: () => duplex.close(),
  };
}

/** Frames of the control API's exec: a byte for the kind, a big-endian length, the bytes. */
export const Kind = { Stdin: 0, Stdout: 1, Stderr: 2, Resize: 3, Exit: 4, Failed: 5 } as const;

const MAX_PAYLOAD = 256 * 1024;

export function frame(kind: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(5 + payload.length);
  bytes[0] = kind;
  new DataView(bytes.buffer).setUint32(1, payload.length);
  bytes.set(payload, 5);
  return bytes;
}

/** Puts frames together again that come in pieces. */
export class Frames {
  readonly #onFrame: (kind: number, payload: Uint8Array) => void;
  #rest = new Uint8Array(0);

  constructor(onFrame: (kind: number, payload: Uint8Array) => void) {
    this.#onFrame = onFrame;
  }

  push(bytes: Uint8Array): void {
    let all = bytes;
    if (this.#rest.length > 0) {
      all = new Uint8Array(this.#rest.length + bytes.length);
      all.set(this.#rest);
      all.set(bytes, this.#rest.length);
    }
    let at = 0;
    while (all.length - at >= 5) {
      const length = new DataView(all.buffer, all.byteOffset + at + 1).getUint32(0);
      if (length > MAX_PAYLOAD) throw new BackendError({ code: "frame", message: `a frame of ${length} bytes` });
      if (all.length - at < 5 + length) break;
      this.#onFrame(all[at], all.subarray(at + 5, at + 5 + length));
      at += 5 + length;
    }
    this.#rest = all.slice(at);
  }
}

interface MachineProgram {
  argv: string[];
  tty?: [rows: number, columns: number];
}

/** A program in the machine. `onExit` comes last, with its code or why it could not be run. */
export async function machineProgram(
  program: MachineProgram,
  onBytes: (bytes: Uint8Array, stderr: boolean) => void,
  onExit: (code: number | null, problem: Problem | null) => void,
): Promise<Shell & { closeWrite(): Promise<void> }> {
  let over = false;
  const exit = (code: number | null, problem: Problem | null) => {
    if (!over) onExit(code, problem);
    over = true;
  };
  const frames = new Frames((kind, payload) => {
    if (kind === Kind.Stdout || kind === Kind.Stderr) onBytes(payload.slice(), kind === Kind.Stderr);
    else if (kind === Kind.Exit) exit(new DataView(payload.buffer, payload.byteOffset).getInt32(0), null);
    else if (kind === Kind.Failed) exit(null, JSON.parse(new TextDecoder().decode(payload)) as Problem);
  });
  const body = { argv: program.argv, env: ["TERM=xterm-256color"], tty: program.tty ?? null };
  const broke = { code: "stream-broken", message: "the connection to the machine broke" };
  const duplex = await backend.open("control", "/v1/exec", body, (bytes) => frames.push(bytes), () => exit(null, broke));
  return {
    async write(bytes) {
      for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) await duplex.write(frame(Kind.Stdin, bytes.subarray(at, at + MAX_PAYLOAD)));
    },
    async resize(rows, columns) {
      const payload = new Uint8Array(4);
      new DataView(payload.buffer).setUint16(0, rows);
      new DataView(payload.buffer).setUint16(2, columns);
      await duplex.write(frame(Kind.Resize, payload));
    },
    closeWrite: () => duplex.write(frame(Kind.Stdin, new Uint8Array(0))),
    close: () => duplex.close(),
  };
}

export function machineShell(
  rows: number,
  columns: number,
  onBytes: (bytes: Uint8Array) => void,
  onEnd: (why: string) => void,
): Promise<Shell> {
  return machineProgram({ argv: [], tty: [rows, columns] }, onBytes, (code, problem) => onEnd(problem?.message ?? `exit ${code}`));
}

/** Runs a program in the machine to its end and gives what it said; a code other than 0 throws with its last words. */
export async function runInMachine(argv: string[]): Promise<Uint8Array> {
  const out: Uint8Array[] = [];
  const err = new TextDecoder();
  let said = "";
  return new Promise((resolve, reject) => {
    const ended = (code: number | null, problem: Problem | null) => {
      if (problem) return reject(new BackendError(problem));
      if (code !== 0) return reject(new BackendError({ code: "program-failed", message: said.trim() || `${argv[0]} ended with ${code}` }));
      const all = new Uint8Array(out.reduce((sum, b) => sum + b.length, 0));
      let at = 0;
      for (const bytes of out) {
        all.set(bytes, at);
        at += bytes.length;
      }
      resolve(all);
    };
    machineProgram({ argv }, (bytes, stderr) => (stderr ? (said += err.decode(bytes, { stream: true })) : out.push(bytes)), ended)
      .then((program) => program.closeWrite())
      .catch(reject);
  });
}
