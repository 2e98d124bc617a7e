// What the pages read of the engine's answers. Members and their types are those of Docker's own SDK, which its makers generate from
// the specification of the engine's API: what is not there any more, or is of another type, fails the check. Of hardly any member
// does the specification say that it is always sent, and never that Go sends an empty list as `null`; that alone is said here.
import type * as api from "@docker/node-sdk";

/** Of `T`: what is always there, what may be `null`, and what may be left out. */
type Read<T, Always extends keyof T, OrNull extends keyof T = never, OrNone extends keyof T = never> = {
  [K in Always]-?: NonNullable<T[K]>;
} & { [K in OrNull]-?: NonNullable<T[K]> | null } & { [K in OrNone]?: T[K] };

/** `T`, where everything in it may be `null`, too. */
type Nullable<T> = T extends object ? { [K in keyof T]: Nullable<T[K]> | null } : T;

/** Members of `T` whose own members are read as said. */
type Within<T, Members extends { [K in keyof Members]: K extends keyof T ? Nullable<T[K]> | null : never }> = Members;

type Ports = Record<string, Read<api.PortBinding, "HostIp" | "HostPort">[] | null>;

export type EndpointSettings = Read<api.EndpointSettings, never, "Aliases", "NetworkID" | "IPAddress" | "GlobalIPv6Address" | "MacAddress" | "Gateway">;

export type MountPoint = Read<api.MountPoint, "Type" | "Source" | "Destination" | "RW", never, "Name" | "Mode" | "Driver">;

/** One of `GET /containers/json`. `Created` is in seconds; `Status` is in words: `Up 3 minutes (healthy)`, `Exited (137) 2 hours ago`. */
export type Container = Read<api.ContainerSummary, "Id" | "Image" | "ImageID" | "Command" | "Created" | "State" | "Status", "Names" | "Ports" | "Labels"> &
  Within<api.ContainerSummary, { Mounts?: MountPoint[]; NetworkSettings?: { Networks: Record<string, EndpointSettings> | null } }>;

/** `GET /containers/{id}/json`. */
export type ContainerDetail = Read<api.ContainerInspectResponse, "Id" | "Name" | "Created" | "Image" | "Path" | "RestartCount", "Args", "Platform"> &
  Within<
    api.ContainerInspectResponse,
    {
      State: Read<api.ContainerState, "Status" | "Running" | "Paused" | "OOMKilled" | "Pid" | "ExitCode" | "Error" | "StartedAt" | "FinishedAt"> &
        Within<
          api.ContainerState,
          { Health?: Read<api.Health, "Status" | "FailingStreak"> & Within<api.Health, { Log: Read<api.HealthcheckResult, "Output" | "ExitCode">[] | null }> }
        >;
      Config: Read<api.ContainerConfig, "Hostname" | "User" | "Image" | "Tty" | "OpenStdin" | "WorkingDir", "Env" | "Cmd" | "Entrypoint" | "Labels", "ExposedPorts">;
      HostConfig: Read<
        api.HostConfig,
        "NetworkMode" | "AutoRemove" | "Privileged" | "Memory" | "NanoCpus",
        "Binds" | "CapAdd" | "CapDrop" | "ExtraHosts",
        "ReadonlyRootfs"
      > &
        Within<
          api.HostConfig,
          {
            PortBindings: Ports | null;
            RestartPolicy: Read<api.RestartPolicy, "Name" | "MaximumRetryCount">;
            Mounts?: Read<api.Mount, "Type" | "Source" | "Target", never, "ReadOnly">[];
          }
        >;
      Mounts: MountPoint[] | null;
      NetworkSettings: Within<api.NetworkSettings, { Ports: Ports | null; Networks: Record<string, EndpointSettings> | null }>;
    }
  >;

/** One of `GET /images/json`. `Size` is with all layers; `SharedSize` and `Containers` are -1 where they were not asked for. */
export type Image = Read<api.ImageSummary, "Id" | "ParentId" | "Created" | "Size" | "SharedSize" | "Containers", "RepoTags" | "RepoDigests" | "Labels">;

/** `GET /images/{name}/json`. */
export type ImageDetail = Read<api.ImageInspect, "Id" | "Created" | "Architecture" | "Os" | "Size", "RepoTags"> &
  Within<
    api.ImageInspect,
    { Config: Read<api.ImageConfig, "WorkingDir" | "User", "Env" | "Cmd" | "Entrypoint" | "Labels", "ExposedPorts" | "Volumes"> | null }
  >;

/** One of `GET /images/{name}/history`. */
export type HistoryEntry = Read<api.HistoryResponseItem, "Id" | "Created" | "CreatedBy" | "Size" | "Comment", "Tags">;

export type Volume = Read<api.Volume, "Name" | "Driver" | "Mountpoint" | "Scope", "Labels" | "Options", "CreatedAt" | "UsageData">;

export type Network = Read<api.NetworkInspect, "Id" | "Name" | "Created" | "Driver" | "Scope" | "Internal" | "Attachable" | "EnableIPv6", "Labels" | "Options"> &
  Within<
    api.NetworkInspect,
    {
      IPAM: Read<api.IPAM, "Driver"> & Within<api.IPAM, { Config: Read<api.IPAMConfig, never, never, "Subnet" | "Gateway">[] | null }>;
      Containers?: Record<string, Read<api.EndpointResource, "Name" | "IPv4Address" | "IPv6Address" | "MacAddress">>;
    }
  >;

export type BuildCache = Read<
  api.BuildCache,
  "ID" | "Type" | "Description" | "InUse" | "Shared" | "Size" | "CreatedAt" | "UsageCount",
  "LastUsedAt",
  "Parents"
>;

/** `GET /system/df`, as far as it was asked for. */
export type DiskUsage = Read<api.SystemDataUsageResponse, never, never, "LayersSize"> &
  Within<api.SystemDataUsageResponse, { Images?: Image[] | null; Volumes?: Volume[] | null; BuildCache?: BuildCache[] | null }>;

export type EngineEvent = Read<api.EventMessage, "Type" | "Action" | "time"> & Within<api.EventMessage, { Actor: Read<api.EventActor, "ID" | "Attributes"> }>;

/** A line of pull, push, load and build; `error` is what older clients read, and not in the specification. */
export type ProgressLine = Read<api.JSONMessage, never, never, "status" | "id" | "progressDetail" | "stream" | "errorDetail"> & { error?: string };

type CpuStats = Read<api.ContainerCPUStats, never, never, "system_cpu_usage" | "online_cpus"> &
  Within<api.ContainerCPUStats, { cpu_usage: Read<api.ContainerCPUUsage, "total_usage"> }>;

/** A line of `GET /containers/{id}/stats`. Its time is text, as in all JSON. */
export type StatsLine = Record<keyof Pick<api.ContainerStatsResponse, "read">, string> &
  Within<
    api.ContainerStatsResponse,
    {
      cpu_stats: CpuStats;
      precpu_stats: CpuStats;
      memory_stats: Read<api.ContainerMemoryStats, never, never, "usage" | "limit" | "stats">;
      networks?: Record<string, Read<api.ContainerNetworkStats, "rx_bytes" | "tx_bytes">>;
      blkio_stats?: Within<api.ContainerBlkioStats, { io_service_bytes_recursive?: Read<api.ContainerBlkioStatEntry, "op" | "value">[] | null }>;
      pids_stats?: Read<api.ContainerPidsStats, never, never, "current">;
    }
  >;
