// What containers and the machine use, measured only for what somebody looks at.
import { Lines } from "../engine/lines";
import { containers } from "../engine/containers";
import { machineProgram } from "../engine/exec";
import { usageOf, type Usage } from "../engine/stats";
import { machine } from "./machine.svelte";
import { following, visible } from "./visible.svelte";

/** Points that are kept: two minutes, one a second. */
const KEPT = 120;

export class Meter {
  points = $state.raw<Usage[]>([]);
  users = 0;
  end: (() => void) | null = null;

  get now(): Usage | null {
    return this.points[this.points.length - 1] ?? null;
  }
}

const meters = new Map<string, Meter>();

/** Measures this container until the effect that called ends. Several that look share one stream. */
export function meterOf(id: string): Meter {
  let meter = meters.get(id);
  if (!meter) meters.set(id, (meter = new Meter()));
  const used = meter;
  $effect(() => {
    if (!visible.on) return;
    used.users += 1;
    used.end ??= following(async (signal) => {
      await containers.stats(id, (line) => {
        // A container that stops says so with empty numbers.
        if (line.cpu_stats.system_cpu_usage !== undefined) used.points = [...used.points.slice(1 - KEPT), usageOf(line)];
      }, signal);
    });
    return () => {
      used.users -= 1;
      if (used.users > 0) return;
      used.end?.();
      used.end = null;
      used.points = [];
      meters.delete(id);
    };
  });
  return used;
}

export interface MachineUsage {
  /** Percent of all CPUs. */
  cpu: number;
  memory: number;
  memoryAll: number;
  disk: number;
  diskAll: number;
}

// Only the shell's own words but for the two at its end: a round costs the guest nearly nothing.
const PROGRAM = `
n=0
while :; do
  read -r cpu < /proc/stat
  while read -r k v _; do case $k in MemTotal:) all=$v;; MemAvailable:) free=$v; break;; esac; done < /proc/meminfo
  [ $((n % 10)) = 0 ] && disk=$(stat -f -c '%S %b %f' /var/lib/docker)
  echo "$cpu|$all $free|$disk"
  n=$((n + 1))
  sleep 2
done`;

/** A line of the program above; `before` is the line's own numbers of the round before. */
export function readUsage(line: string, before: { busy: number; all: number } | null): { usage: MachineUsage; cpu: { busy: number; all: number } } | null {
  const [cpu, mem, disk] = line.split("|").map((part) => part.replace(/^cpu\s+/, "").trim().split(/\s+/).map(Number));
  if (!cpu || !mem || !disk || cpu.length < 5 || mem.length < 2 || disk.length < 3 || [...cpu, ...mem, ...disk].some(Number.isNaN)) return null;
  const all = cpu.slice(0, 8).reduce((sum, n) => sum + n, 0);
  const busy = all - cpu[3] - cpu[4];
  const passed = before ? all - before.all : 0;
  return {
    cpu: { busy, all },
    usage: {
      cpu: before && passed > 0 ? (100 * (busy - before.busy)) / passed : 0,
      memory: (mem[0] - mem[1]) * 1024,
      memoryAll: mem[0] * 1024,
      disk: (disk[1] - disk[2]) * disk[0],
      diskAll: disk[1] * disk[0],
    },
  };
}

class MachineMeter {
  now = $state.raw<MachineUsage | null>(null);

  begin(): void {
    $effect.root(() => {
      $effect(() => {
        if (!machine.engineUp) {
          this.now = null;
          return;
        }
        if (!visible.on) return;
        return following((signal) => this.#follow(signal));
      });
    });
  }

  #follow(signal: AbortSignal): Promise<void> {
    let before: { busy: number; all: number } | null = null;
    const lines = new Lines((line) => {
      const read = readUsage(line, before);
      if (!read) return;
      if (before) this.now = read.usage;
      before = read.cpu;
    });
    return new Promise((resolve, reject) => {
      machineProgram({ argv: ["/bin/sh", "-c", PROGRAM] }, (bytes, stderr) => !stderr && !signal.aborted && lines.push(bytes), () => resolve()).then((program) => {
        if (signal.aborted) void program.close();
        else signal.addEventListener("abort", () => (void program.close(), resolve()), { once: true });
      }, reject);
    });
  }
}

export const machineMeter = new MachineMeter();
