// A line of the engine's stats as what a person reads.
import type { StatsLine } from "./types";

export interface Usage {
  /** Milliseconds since the epoch. */
  at: number;
  /** Percent of one CPU. */
  cpu: number;
  /** Bytes without the page cache that can be dropped. */
  memory: number;
  memoryLimit: number;
  /** Bytes in all. */
  received: number;
  sent: number;
  read: number;
  written: number;
  processes: number;
}

export function usageOf(line: StatsLine): Usage {
  const cpu = line.cpu_stats.cpu_usage.total_usage - line.precpu_stats.cpu_usage.total_usage;
  const now = line.cpu_stats.system_cpu_usage ?? 0;
  // The first line has nothing to compare with.
  const system = now - (line.precpu_stats.system_cpu_usage ?? now);
  const memory = line.memory_stats;
  const droppable = memory.stats?.inactive_file ?? memory.stats?.total_inactive_file ?? 0;
  const networks = Object.values(line.networks ?? {});
  const blocks = line.blkio_stats?.io_service_bytes_recursive ?? [];
  const sum = (op: string) => blocks.filter((b) => b.op.toLowerCase() === op).reduce((all, b) => all + b.value, 0);
  return {
    at: Date.parse(line.read),
    cpu: system > 0 && cpu > 0 ? (cpu / system) * (line.cpu_stats.online_cpus ?? 1) * 100 : 0,
    memory: Math.max(0, (memory.usage ?? 0) - droppable),
    memoryLimit: memory.limit ?? 0,
    received: networks.reduce((all, n) => all + n.rx_bytes, 0),
    sent: networks.reduce((all, n) => all + n.tx_bytes, 0),
    read: sum("read"),
    written: sum("write"),
    processes: line.pids_stats?.current ?? 0,
  };
}
