// What the page reads of the engine's answers (API 1.43 and newer), in the engine's own words.

export interface PortBinding {
  IP?: string;
  PrivatePort: number;
  PublicPort?: number;
  Type: string;
}

export interface MountPoint {
  Type: string;
  Name?: string;
  Source: string;
  Destination: string;
  Mode?: string;
  RW: boolean;
  Driver?: string;
}

export type ContainerState = "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";

/** One of `GET /containers/json`. */
export interface Container {
  Id: string;
  Names: string[] | null;
  Image: string;
  ImageID: string;
  Command: string;
  /** Seconds since the epoch. */
  Created: number;
  Ports: PortBinding[] | null;
  Labels: Record<string, string> | null;
  State: ContainerState;
  /** In words: `Up 3 minutes (healthy)`, `Exited (137) 2 hours ago`. */
  Status: string;
  Mounts?: MountPoint[];
  NetworkSettings?: { Networks: Record<string, EndpointSettings> | null };
}

export interface EndpointSettings {
  NetworkID?: string;
  IPAddress?: string;
  GlobalIPv6Address?: string;
  MacAddress?: string;
  Gateway?: string;
  Aliases?: string[] | null;
}

/** `GET /containers/{id}/json`. */
export interface ContainerDetail {
  Id: string;
  Name: string;
  Created: string;
  Image: string;
  Path: string;
  Args: string[] | null;
  RestartCount: number;
  Platform?: string;
  State: {
    Status: ContainerState;
    Running: boolean;
    Paused: boolean;
    OOMKilled: boolean;
    Pid: number;
    ExitCode: number;
    Error: string;
    StartedAt: string;
    FinishedAt: string;
    Health?: { Status: string; FailingStreak: number; Log: { Output: string; ExitCode: number }[] | null };
  };
  Config: {
    Hostname: string;
    User: string;
    Env: string[] | null;
    Cmd: string[] | null;
    Entrypoint: string[] | null;
    Image: string;
    Labels: Record<string, string> | null;
    Tty: boolean;
    OpenStdin: boolean;
    WorkingDir: string;
    ExposedPorts?: Record<string, object> | null;
  };
  HostConfig: {
    Binds: string[] | null;
    PortBindings: Record<string, { HostIp: string; HostPort: string }[] | null> | null;
    RestartPolicy: { Name: string; MaximumRetryCount: number };
    NetworkMode: string;
    AutoRemove: boolean;
    Privileged: boolean;
    ReadonlyRootfs?: boolean;
    CapAdd: string[] | null;
    CapDrop: string[] | null;
    ExtraHosts: string[] | null;
    Memory: number;
    NanoCpus: number;
    Mounts?: { Type: string; Source: string; Target: string; ReadOnly?: boolean }[] | null;
  };
  Mounts: MountPoint[] | null;
  NetworkSettings: {
    Ports: Record<string, { HostIp: string; HostPort: string }[] | null> | null;
    Networks: Record<string, EndpointSettings> | null;
  };
}

/** One of `GET /images/json`. */
export interface Image {
  Id: string;
  RepoTags: string[] | null;
  RepoDigests: string[] | null;
  Created: number;
  /** Bytes with all layers. */
  Size: number;
  /** Bytes that other images have too; -1 where it was not asked for. */
  SharedSize: number;
  /** -1 where it was not asked for. */
  Containers: number;
  Labels: Record<string, string> | null;
  ParentId?: string;
}

export interface ImageDetail {
  Id: string;
  RepoTags: string[] | null;
  Created: string;
  Architecture: string;
  Os: string;
  Size: number;
  Config: {
    Env: string[] | null;
    Cmd: string[] | null;
    Entrypoint: string[] | null;
    ExposedPorts?: Record<string, object> | null;
    Volumes?: Record<string, object> | null;
    WorkingDir: string;
    User: string;
    Labels: Record<string, string> | null;
  } | null;
}

export interface HistoryEntry {
  Id: string;
  Created: number;
  CreatedBy: string;
  Size: number;
  Comment: string;
  Tags: string[] | null;
}

export interface Volume {
  Name: string;
  Driver: string;
  Mountpoint: string;
  CreatedAt?: string;
  Labels: Record<string, string> | null;
  Options: Record<string, string> | null;
  Scope: string;
  UsageData?: { Size: number; RefCount: number } | null;
}

export interface Network {
  Id: string;
  Name: string;
  Created: string;
  Driver: string;
  Scope: string;
  Internal: boolean;
  Attachable: boolean;
  EnableIPv6: boolean;
  IPAM: { Driver: string; Config: { Subnet?: string; Gateway?: string }[] | null };
  Labels: Record<string, string> | null;
  Options: Record<string, string> | null;
  Containers?: Record<string, { Name: string; IPv4Address: string; IPv6Address: string; MacAddress: string }>;
}

export interface BuildCache {
  ID: string;
  Parents?: string[] | null;
  Type: string;
  Description: string;
  InUse: boolean;
  Shared: boolean;
  Size: number;
  CreatedAt: string;
  LastUsedAt: string | null;
  UsageCount: number;
}

/** `GET /system/df`, as far as it was asked for. */
export interface DiskUsage {
  LayersSize?: number;
  Images?: Image[] | null;
  Volumes?: Volume[] | null;
  BuildCache?: BuildCache[] | null;
}

export interface EngineEvent {
  Type: string;
  Action: string;
  Actor: { ID: string; Attributes: Record<string, string> };
  time: number;
}

/** A line of pull, push, load and build. */
export interface ProgressLine {
  status?: string;
  id?: string;
  progressDetail?: { current?: number; total?: number };
  stream?: string;
  error?: string;
  errorDetail?: { message: string };
  aux?: unknown;
}

/** A line of `GET /containers/{id}/stats`. */
export interface StatsLine {
  read: string;
  cpu_stats: CpuStats;
  precpu_stats: CpuStats;
  memory_stats: { usage?: number; limit?: number; stats?: Record<string, number> };
  networks?: Record<string, { rx_bytes: number; tx_bytes: number }>;
  blkio_stats?: { io_service_bytes_recursive?: { op: string; value: number }[] | null };
  pids_stats?: { current?: number };
}

interface CpuStats {
  cpu_usage: { total_usage: number };
  system_cpu_usage?: number;
  online_cpus?: number;
}
