// What the scripted engine has: the answers' form is the real engine's (28.5), the content is a shop that somebody develops.

const hex = (n) => n.toString(16).padStart(2, "0").repeat(32);
const now = Math.floor(Date.now() / 1000);

function container(n, name, image, State, Status, more = {}) {
  const project = more.project && { "com.docker.compose.project": more.project, "com.docker.compose.service": more.service };
  return {
    Id: hex(n),
    Names: [`/${name}`],
    Image: image,
    ImageID: `sha256:${hex(more.image ?? 200)}`,
    Command: "/entry",
    Created: now - (more.age ?? 3600),
    Ports: (more.ports ?? []).flatMap(([PublicPort, PrivatePort, Type = "tcp"]) => [
      { IP: "0.0.0.0", PrivatePort, PublicPort, Type },
      { IP: "::", PrivatePort, PublicPort, Type },
    ]),
    Labels: { ...project },
    State,
    Status,
    Mounts: more.volume ? [{ Type: "volume", Name: more.volume, Source: `/var/lib/docker/volumes/${more.volume}/_data`, Destination: "/data", RW: true }] : [],
    NetworkSettings: { Networks: { [more.project ? `${more.project}_default` : "bridge"]: { NetworkID: hex(more.project ? 103 : 100), IPAddress: "172.18.0.4" } } },
  };
}

const containers = [
  container(1, "shop-api-1", "shop/api:2.4", "running", "Up 3 minutes (healthy)", { project: "shop", service: "api", ports: [[8080, 80], [9229, 9229]], image: 201, age: 200 }),
  container(2, "shop-web-1", "shop/web:2.4", "running", "Up 3 minutes", { project: "shop", service: "web", ports: [[3000, 3000]], image: 202, age: 200 }),
  container(3, "shop-db-1", "postgres:17", "running", "Up 3 minutes (healthy)", { project: "shop", service: "db", ports: [[5432, 5432]], image: 203, volume: "shop_pgdata", age: 210 }),
  container(4, "shop-worker-1", "shop/api:2.4", "restarting", "Restarting (1) 4 seconds ago", { project: "shop", service: "worker", image: 201, age: 190 }),
  container(5, "docs-site-1", "nginx:1.29", "exited", "Exited (0) 2 hours ago", { project: "docs", service: "site", image: 204, age: 90000 }),
  container(6, "docs-search-1", "getmeili/meilisearch:v1.20", "exited", "Exited (137) 2 hours ago", { project: "docs", service: "search", image: 205, age: 90000 }),
  container(7, "slipway-welcome", "slipway/welcome", "running", "Up 2 days", { ports: [[8081, 80]], image: 206, age: 180000 }),
  container(8, "redis-cache", "redis:8-alpine", "paused", "Up 5 hours (Paused)", { ports: [[6379, 6379]], image: 207, volume: "redis-data", age: 18000 }),
  container(9, "mailpit", "axllent/mailpit:v1.27", "running", "Up 6 hours (unhealthy)", { ports: [[1025, 1025], [8025, 8025]], image: 208, age: 22000 }),
  container(10, "dns", "coredns/coredns:1.13", "running", "Up 8 days", { ports: [[5353, 53, "udp"]], image: 209, age: 700000 }),
  container(11, "migrate-2026-11", "shop/api:2.3", "exited", "Exited (1) 3 days ago", { image: 210, age: 260000 }),
];

const image = (n, tags, Size, age, SharedSize = 0) => ({ Id: `sha256:${hex(n)}`, RepoTags: tags, RepoDigests: tags.map((t) => `${t.split(":")[0]}@sha256:${hex(n + 20)}`), Created: now - age, Size, SharedSize, Containers: -1, Labels: null });
const images = [
  image(201, ["shop/api:2.4", "shop/api:latest"], 214_000_000, 4000, 131_000_000),
  image(202, ["shop/web:2.4"], 188_000_000, 4200, 131_000_000),
  image(203, ["postgres:17"], 438_000_000, 1_900_000, 74_800_000),
  image(204, ["nginx:1.29"], 192_000_000, 2_400_000, 74_800_000),
  image(205, ["getmeili/meilisearch:v1.20"], 156_000_000, 5_000_000),
  image(206, ["slipway/welcome:latest"], 1_310_000, 9_000_000),
  image(207, ["redis:8-alpine"], 60_500_000, 3_000_000, 8_300_000),
  image(208, ["axllent/mailpit:v1.27"], 34_000_000, 6_000_000, 8_300_000),
  image(209, ["coredns/coredns:1.13"], 68_000_000, 8_000_000),
  image(210, ["shop/api:2.3"], 213_000_000, 800_000, 131_000_000),
  image(211, [], 209_000_000, 9000, 131_000_000),
];

const volume = (Name, age, Labels = {}) => ({ Name, Driver: "local", Mountpoint: `/var/lib/docker/volumes/${Name}/_data`, CreatedAt: new Date((now - age) * 1000).toISOString(), Labels, Options: null, Scope: "local" });
const volumes = [volume("shop_pgdata", 900_000, { "com.docker.compose.project": "shop" }), volume("redis-data", 400_000), volume("docs_index", 950_000), volume("ab34cd56ef7890ab34cd56ef7890ab34cd56ef7890ab34cd56ef7890ab34cd56", 90_000)];

const network = (n, Name, Driver, subnet, age) => ({ Id: hex(n), Name, Created: new Date((now - age) * 1000).toISOString(), Driver, Scope: "local", Internal: false, Attachable: false, EnableIPv6: false, IPAM: { Driver: "default", Config: subnet ? [{ Subnet: subnet, Gateway: subnet.replace("0/16", "1") }] : [] }, Labels: {}, Options: {} });
const networks = [network(100, "bridge", "bridge", "172.17.0.0/16", 9e5), network(101, "host", "host", null, 9e5), network(102, "none", "null", null, 9e5), network(103, "shop_default", "bridge", "172.18.0.0/16", 4000), network(104, "docs_default", "bridge", "172.19.0.0/16", 95_000)];

const phase = (name, started_ms, ended_ms, detail = "") => ({ name, state: "done", started_ms, ended_ms, detail });
const phases = [phase("image", 0, 110), phase("machine", 110, 380, "qemu 7.2.22"), phase("agent", 380, 1240), phase("mounts", 1240, 1310), phase("data-disk", 1310, 1480), phase("network", 1480, 1510), phase("containerd", 1510, 1760), phase("engine", 1760, 2420), phase("images", 2420, 2530)];

const setting = (name, value, doc, expected, needs_restart, set = false) => ({ name, value, set, doc, expected, needs_restart });
const settings = [
  setting("machine.cpus", "4", "Virtual CPUs. Default: as many as the host has.", "a whole number from 1 to 256", true),
  setting("machine.memory", "4GiB", "Memory of the machine. Default: a quarter of the host's, 2GiB at least, 8GiB at most.", "a size of at least 512MiB, such as `4GiB`", true, true),
  setting("machine.disk", "100GiB", "Size that the data disk can grow to. It takes the space that its contents need, and is never shrunk.", "a size of at least 1GiB, such as `4GiB`", true),
  setting("machine.accel", "auto", "auto: hardware where it really runs a guest. kvm: hardware or fail. tcg: software emulation.", "`auto` or `kvm` or `tcg`", true),
  setting("docker.activate-context", "true", "Make the docker context `slipway` the current one at start.", "`true` or `false`", false),
  setting("docker.install-cli", "true", "Bring docker, buildx and compose where the host has none.", "`true` or `false`", false),
  setting("shares.home", "true", "Share the home folder with the machine, at the same path.", "`true` or `false`", true),
  setting("shares.on-demand", "refuse", "A container mounts a folder that is not shared. refuse: say so. share: share it, and remember.", "`refuse` or `share`", false),
  setting("shares.exclude", ".git/objects", "Folders in which changes on the host are no events in containers: names or ends of paths.", "names with commas between them", false),
  setting("start.timeout", "300", "Seconds that a start may take until the engine answers.", "a whole number from 10 to 3600", false),
  setting("stop.timeout", "60", "Seconds that containers get to stop before the machine is ended.", "a whole number from 1 to 3600", false),
];

const port = (host_port, container_port, n, name, more = {}) => ({ protocol: "tcp", host_ip: "0.0.0.0", host_port, target: `172.18.0.${n}:${container_port}`, container_port, container: { id: hex(n), name }, origin: "published", state: "listening", since_ms: (now - 200) * 1000, ...more });

const WORDS = ["GET /products 200 12 ms", "GET /cart 200 4 ms", "POST /orders 201 38 ms", "cache warm", "GET /health 200 1 ms"];
const log = [
  [1, "\x1b[1mshop-api\x1b[0m 2.4 on node 24.11"],
  [1, "listening on \x1b[36mhttp://0.0.0.0:80\x1b[0m"],
  ...Array.from({ length: 160 }, (_, i) => [1, `\x1b[32minfo\x1b[0m  ${WORDS[i % 5]}  request=${(i * 7919).toString(16).padStart(6, "0")}`]),
  [2, "\x1b[33mwarn\x1b[0m  pool: 18 of 20 connections are in use"],
  [2, "\x1b[31merror\x1b[0m payment: the gateway did not answer within 5 s, trying again (1 of 3)"],
  [1, "\x1b[32minfo\x1b[0m  payment: answered after 1.2 s"],
  ...Array.from({ length: 12 }, (_, i) => [1, `\x1b[32minfo\x1b[0m  ${WORDS[i % 5]}  request=${(i * 104729).toString(16).padStart(6, "0")}`]),
];

const logLine = (i, unit, text) => ({ unix_ms: 1795740000000 + i * 211, unit, line: text });

const at = (age) => new Date((now - age) * 1000).toISOString();
function steps(failed) {
  const names = ["[internal] load build definition from Dockerfile", "[internal] load .dockerignore", "[build 1/6] FROM docker.io/library/node:24", "[build 2/6] WORKDIR /srv", "[build 3/6] COPY package*.json .", "[build 4/6] RUN npm ci", "[build 5/6] RUN npm run build"];
  const vertexes = names.map((name, i) => ({ digest: `sha256:${hex(i + 1)}`, name, started: at(900 - i), completed: at(900 - i - (i > 4 ? 12 : 0.4)), cached: i > 1 && i < 5, error: failed && i === 6 ? "exit code: 1" : undefined }));
  const logs = [
    [6, "added 412 packages in 9s\n"],
    [7, failed ? "> shop-api@2.4.0 build\n> tsc -p .\n\nsrc/orders.ts(41,17): error TS2345: Argument of type 'string' is not assignable to parameter of type 'OrderId'.\n" : "> shop-api@2.4.0 build\n> tsc -p .\n"],
  ].map(([n, text]) => ({ vertex: `sha256:${hex(n)}`, stream: 1, data: Buffer.from(text).toString("base64") }));
  return { vertexes, logs };
}

export const fixtures = {
  platform: { os: "linux", version: "0.1.0", dockerConfig: "/home/anna/.docker", profile: "default", window: false },
  status: {
    profile: "default",
    state: "running",
    notices: [],
    phases,
    services: [{ name: "containerd", running: true, restarts: 0 }, { name: "dockerd", running: true, restarts: 0 }],
    engine: "28.5.2",
    socket: "/home/anna/.slipway/run/docker.sock",
    machine: { cpus: 4, memory_mib: 4096, pid: 71245, vmm: "qemu 7.2.22", accel: "kvm", transport: "vhost-user-vsock" },
    image: "0.1.0+20261127.5a31c7e2",
    docker: { context: "slipway", current: true },
    running_since: now - 7300,
  },
  phases,
  containers,
  images,
  volumes,
  networks,
  members: { [hex(1)]: { Name: "shop-api-1", IPv4Address: "172.18.0.4/16", IPv6Address: "", MacAddress: "" }, [hex(3)]: { Name: "shop-db-1", IPv4Address: "172.18.0.2/16", IPv6Address: "", MacAddress: "" } },
  buildCache: [
    { ID: "k2m1x7c1hw8y", Parents: ["a1"], Type: "regular", Description: "mount / from exec /bin/sh -c npm ci --omit=dev", InUse: false, Shared: true, Size: 91_000_000, CreatedAt: new Date((now - 4000) * 1000).toISOString(), LastUsedAt: new Date((now - 3900) * 1000).toISOString(), UsageCount: 7 },
    { ID: "p0q9r8s7t6u5", Parents: ["k2"], Type: "regular", Description: "[build 4/6] COPY . .", InUse: false, Shared: false, Size: 3_400_000, CreatedAt: new Date((now - 4000) * 1000).toISOString(), LastUsedAt: new Date((now - 3900) * 1000).toISOString(), UsageCount: 1 },
    { ID: "z1y2x3w4v5u6", Parents: [], Type: "source.local", Description: "local source for context", InUse: true, Shared: false, Size: 12_800_000, CreatedAt: new Date((now - 400_000) * 1000).toISOString(), LastUsedAt: new Date((now - 3900) * 1000).toISOString(), UsageCount: 31 },
    { ID: "c1a2c3h4e5m6", Parents: [], Type: "exec.cachemount", Description: "cached mount /root/.npm from exec /bin/sh -c npm ci", InUse: false, Shared: false, Size: 240_000_000, CreatedAt: new Date((now - 900_000) * 1000).toISOString(), LastUsedAt: null, UsageCount: 0 },
  ],
  builds: [
    { ref: "default/default/76xnafpgx9u97p0fa8k8klmi7", name: "shop/api", status: "Error", created_at: at(900), completed_at: at(871), total_steps: 9, cached_steps: 4 },
    { ref: "default/default/c4an8i7oomwp0s956ik3be48w", name: "shop/api", status: "Completed", created_at: at(4000), completed_at: at(3962), total_steps: 9, cached_steps: 6 },
    { ref: "default/default/zi3afcphwfrl687z0for44zc8", name: "shop/web", status: "Completed", created_at: at(4300), completed_at: at(4203), total_steps: 12, cached_steps: 0 },
    { ref: "default/default/r2d2afcphwfrl687z0for44zc", name: "docs (site)", status: "Canceled", created_at: at(90000), completed_at: at(89990), total_steps: 5, cached_steps: 2 },
  ],
  buildDetail: { Context: "api", Dockerfile: "Dockerfile", StartedAt: at(4000), CompletedAt: at(3962), Duration: 38_200_000_000, Status: "completed", NumCompletedSteps: 9, NumTotalSteps: 9, NumCachedSteps: 6, Platform: ["linux/amd64"], BuildArgs: [{ Name: "NODE_ENV", Value: "production" }] },
  buildError: { Code: 2, Message: 'process "/bin/sh -c npm run build" did not complete successfully: exit code: 1', Name: "[build 5/6] RUN npm run build", Logs: ["error TS2345"], Sources: Buffer.from("Dockerfile:9\n--------------------\n   7 |     COPY package*.json .\n   8 |     RUN npm ci\n   9 | >>> RUN npm run build\n  10 |     \n  11 |     FROM node:24-slim\n--------------------\n").toString("base64") },
  buildSteps: steps(false),
  failedSteps: steps(true),
  settings,
  checks: [
    { id: "daemon", state: "ok", message: "answers: 0.1.0, process 4100", fixable: false, fixed: false },
    { id: "qemu", state: "ok", message: "7.2.22", fixable: false, fixed: false },
    { id: "acceleration", state: "warning", message: "no hardware acceleration: everything works, several times slower", causes: ["this user may not open /dev/kvm"], hint: "`sudo usermod -aG kvm $USER`, then log in anew", fixable: false, fixed: false },
    { id: "docker-context", state: "failed", message: "the docker context `slipway` leads elsewhere", causes: ["its engine is `unix:///old.sock`"], hint: "`slipway doctor --fix` sets it right", fixable: true, fixed: false },
    { id: "docker-environment", state: "not-applicable", message: "only `slipway doctor` in a terminal sees what its shell has set", fixable: false, fixed: false },
  ],
  images_kept: {
    current: { version: "0.1.0+3f2a9c10", dir: "/home/anna/.slipway/image" },
    previous: { version: "0.1.0+b71d04e2", dir: "/home/anna/.slipway/image.previous" },
  },
  disk: {
    data_disk: "/home/anna/.slipway/machine/data.raw",
    host_bytes: 6_400_000_000,
    limit_bytes: 107_374_182_400,
    guest_bytes: 4_200_000_000,
    guest_free_bytes: 100_800_000_000,
    holdings: [
      { kind: "images", count: 14, bytes: 3_100_000_000, reclaimable_bytes: 1_200_000_000 },
      { kind: "containers", count: 11, bytes: 48_000_000, reclaimable_bytes: 2_000_000 },
      { kind: "volumes", count: 5, bytes: 620_000_000, reclaimable_bytes: 0 },
      { kind: "build cache", count: 31, bytes: 410_000_000, reclaimable_bytes: 410_000_000 },
    ],
    missing: [],
  },
  holdings: { data_disk: "/home/anna/.slipway/machine/data.raw", data_bytes: 6_400_000_000, settings: ["machine.memory"] },
  mounts: {
    mounts: [
      { path: "/home/anna", guest_path: "/home/anna", read_only: false, origin: "home", watched: ["/home/anna/shop"] },
      { path: "/srv/fixtures", guest_path: "/srv/fixtures", read_only: true, origin: "added", watched: [] },
    ],
  },
  ports: [port(8080, 80, 1, "shop-api-1"), port(3000, 3000, 2, "shop-web-1"), port(5432, 5432, 3, "shop-db-1"), port(9229, 9229, 1, "shop-api-1", { state: "failed", since_ms: undefined, problem: "port 9229 is in use on this computer by node (pid 812)" })],
  log,
  daemonLog: [
    logLine(0, "daemon", "INFO start asked for"),
    logLine(1, "shim", "INFO qemu 7.2.22 started, pid 71245"),
    logLine(2, "kernel", "Linux version 6.12.57+deb13-cloud-amd64"),
    logLine(5, "agent", "stage 2: data disk mounted, 93 of 100 GB free"),
    logLine(6, "containerd", 'level=info msg="containerd successfully booted in 0.08s"'),
    logLine(9, "dockerd", 'level=info msg="API listen on /run/docker.sock"'),
    logLine(10, "daemon", "INFO engine ready after 2.4 s"),
  ],
  files: [
    { name: "bin", mode: "41ed", size: 4096, mtime: now - 9e5 },
    { name: "etc", mode: "41ed", size: 4096, mtime: now - 4e5 },
    { name: "srv", mode: "41ed", size: 4096, mtime: now - 4e3 },
    { name: "latest", mode: "a1ff", size: 3, mtime: now - 4e3 },
    { name: "app.conf", mode: "81a4", size: 1204, mtime: now - 3e3 },
    { name: "entry", mode: "81ed", size: 4_802_112, mtime: now - 2e5 },
  ],
  history: [
    { Id: "1", Created: now, CreatedBy: 'CMD ["node" "server.js"]', Size: 0, Comment: "buildkit.dockerfile.v0", Tags: null },
    { Id: "2", Created: now, CreatedBy: "EXPOSE map[80/tcp:{}]", Size: 0, Comment: "", Tags: null },
    { Id: "3", Created: now, CreatedBy: "COPY . . # buildkit", Size: 3_400_000, Comment: "", Tags: null },
    { Id: "4", Created: now, CreatedBy: "RUN /bin/sh -c npm ci --omit=dev # buildkit", Size: 79_000_000, Comment: "", Tags: null },
    { Id: "5", Created: now, CreatedBy: "WORKDIR /srv", Size: 0, Comment: "", Tags: null },
    { Id: "6", Created: now, CreatedBy: "/bin/sh -c #(nop) ADD file:1f2 in / ", Size: 131_000_000, Comment: "", Tags: null },
  ],
  imageDetail: { Created: new Date(now * 1000 - 4e6).toISOString(), Architecture: "amd64", Os: "linux", Size: 214_000_000, Config: { Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "NODE_VERSION=24.11.1"], Cmd: ["node", "server.js"], Entrypoint: null, ExposedPorts: { "80/tcp": {} }, Volumes: { "/data": {} }, WorkingDir: "/srv", User: "node", Labels: { "org.opencontainers.image.source": "https://example.org/shop" } } },
  detail: {
    Created: new Date(now * 1000 - 2e5).toISOString(),
    Image: `sha256:${hex(201)}`,
    Path: "node",
    Args: ["server.js"],
    RestartCount: 0,
    State: { Status: "running", Running: true, Paused: false, OOMKilled: false, Pid: 4711, ExitCode: 0, Error: "", StartedAt: new Date(now * 1000 - 2e5).toISOString(), FinishedAt: "0001-01-01T00:00:00Z" },
    Config: { Hostname: hex(1).slice(0, 12), User: "node", Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "NODE_VERSION=24.11.1", "DATABASE_URL=postgres://db/shop"], Cmd: ["node", "server.js"], Entrypoint: null, Image: "shop/api:2.4", Labels: { "com.docker.compose.project": "shop" }, Tty: false, OpenStdin: false, WorkingDir: "/srv" },
    HostConfig: { Binds: ["/home/anna/shop/api:/srv"], PortBindings: { "80/tcp": [{ HostIp: "", HostPort: "8080" }] }, RestartPolicy: { Name: "unless-stopped", MaximumRetryCount: 0 }, NetworkMode: "shop_default", AutoRemove: false, Privileged: false, CapAdd: null, CapDrop: null, ExtraHosts: null, Memory: 0, NanoCpus: 0 },
    Mounts: [{ Type: "bind", Source: "/home/anna/shop/api", Destination: "/srv", RW: true }, { Type: "volume", Name: "shop_uploads", Source: "/var/lib/docker/volumes/shop_uploads/_data", Destination: "/data", RW: false }],
    NetworkSettings: { Ports: { "80/tcp": [{ HostIp: "0.0.0.0", HostPort: "8080" }, { HostIp: "::", HostPort: "8080" }], "9229/tcp": [{ HostIp: "0.0.0.0", HostPort: "9229" }], "9090/tcp": null }, Networks: { shop_default: { NetworkID: hex(103), IPAddress: "172.18.0.4", GlobalIPv6Address: "" } } },
  },
};
export { container, hex };
