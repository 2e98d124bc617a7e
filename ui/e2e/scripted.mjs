// A scripted daemon and engine, for states that are hard to make with a real one: a failed boot, 1,000 containers, hostile names.
// It answers as the real ones were seen to; what a button does changes its lists and is told in its events.
import { fixtures } from "./fixtures.mjs";

const NO = (status, message) => Object.assign(new Error(message), { status });
const bytes = (text) => Buffer.from(text);
const line = (value) => bytes(`${JSON.stringify(value)}\n`);

/** A frame of the engine's output without a terminal. */
export function frame(stream, text) {
  const payload = bytes(text);
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(payload.length, 4);
  return Buffer.concat([head, payload]);
}

export class Scripted {
  constructor(changes = {}) {
    Object.assign(this, structuredClone(fixtures), changes);
    this.watchers = { status: new Set(), ports: new Set(), events: new Set(), logs: new Set() };
    /** Every request that changes something, for the tests to look at. */
    this.acts = [];
    this.streams = 0;
  }

  setStatus(changes) {
    Object.assign(this.status, changes);
    for (const send of this.watchers.status) send(line(this.status));
  }

  event(Type, Action, ID, Attributes = {}) {
    for (const send of this.watchers.events) send(line({ Type, Action, Actor: { ID, Attributes }, time: Date.now() / 1000 }));
  }

  startDaemon() {
    this.unreachable = false;
  }

  buildHistory(verb, reference) {
    const build = this.builds.find((b) => b.ref.endsWith(`/${reference}`));
    if (verb === "ls") return this.builds.map((b) => JSON.stringify(b)).join("\n");
    if (verb === "rm") this.builds = this.builds.filter((b) => b !== build);
    if (verb === "inspect") return JSON.stringify({ ...this.buildDetail, Name: build.name, Ref: reference, Error: build.status === "Error" ? this.buildError : undefined });
    return verb === "logs" ? JSON.stringify(build.status === "Error" ? this.failedSteps : this.buildSteps) : "";
  }

  /** BuildKit's lines for a build that is done again: a step that says something now and then, `rebuildSteps` times. */
  async rebuild({ reference, tag }, tell, signal) {
    this.acts.push({ which: "bridge", path: "/rebuild", body: { reference, tag } });
    if (this.rebuildRefused) throw Object.assign(NO(502, "this build cannot be done again"), { code: "rebuild-refused", causes: [this.rebuildRefused] });
    const said = (value) => tell(`${JSON.stringify(value)}\n`);
    const step = { digest: "sha256:again", name: "[2/2] RUN make", started: new Date().toISOString() };
    said({ vertexes: [{ ...step }] });
    for (let i = 1; i <= this.rebuildSteps && !signal.aborted; i++) {
      said({ logs: [{ vertex: step.digest, data: Buffer.from(`made ${i}\n`).toString("base64") }] });
      await new Promise((later) => setTimeout(later, 50));
    }
    if (signal.aborted) return;
    said({ vertexes: [{ ...step, completed: new Date().toISOString(), error: this.rebuildError }] });
    if (this.rebuildError) throw Object.assign(NO(502, this.rebuildError), { code: "buildx-refused" });
    this.builds.unshift({ ...this.builds[0], ref: `default/default/${"b".repeat(25)}`, name: "done again" });
  }

  #find(id) {
    const found = this.containers.find((c) => c.Id === id || c.Names[0] === `/${id}` || c.Id.startsWith(id));
    if (!found) throw NO(404, `No such container: ${id}`);
    return found;
  }

  async request(which, method, path, body) {
    if (which === "control" && this.unreachable) throw Object.assign(new Error("failed to connect to `/home/anna/.slipway/run/api.sock`"), { code: "daemon-unreachable" });
    const { pathname, searchParams } = new URL(path, "http://x");
    if (method !== "GET") this.acts.push({ which, method, path, body });
    if (this.execLate && /\/exec$/.test(pathname)) await new Promise((later) => setTimeout(later, this.execLate));
    if (this.inspectLate && /^\/images\/.*\/json$/.test(pathname)) await new Promise((later) => setTimeout(later, this.inspectLate));
    try {
      const json = which === "control" ? this.#control(method, pathname.slice(3), body) : this.#engine(method, pathname, searchParams, body);
      return { status: 200, json };
    } catch (error) {
      if (!error.status) throw error;
      return { status: error.status, json: { code: error.code ?? "refused", message: error.message, hint: error.hint } };
    }
  }

  #control(method, path, body) {
    if (path === "/status") return this.status;
    if (path === "/settings") return this.settings;
    if (path.startsWith("/settings/")) {
      const setting = this.settings.find((s) => s.name === decodeURIComponent(path.slice(10)));
      if (method === "PUT") {
        if (/^-|apples/.test(body.value)) throw NO(400, `\`${setting.name}\` takes ${setting.expected}, not \`${body.value}\``);
        Object.assign(setting, { value: body.value, set: true });
      } else setting.set = false;
      if (setting.needs_restart) this.setStatus({ pending_settings: [setting.name] });
      return setting;
    }
    if (path === "/doctor") {
      const checks = this.checks.map((check) => ({ ...check }));
      for (const check of this.checks.filter((c) => c.fixable && body.fix.includes(c.id))) Object.assign(check, { state: "ok", message: "`slipway` is the current one", causes: [], hint: null, fixable: false });
      return { slipway: "0.1.0", profile: "default", checks: this.checks.map((check, i) => ({ ...check, fixed: check.state !== checks[i].state })) };
    }
    if (path === "/diagnose") {
      if (this.taken === body.path) throw Object.assign(NO(409, `\`${body.path}\` is there already`), { code: "file-exists", hint: "choose another name, or move it away" });
      return { path: body.path, bytes: 48_000, files: ["manifest.json"] };
    }
    if (path === "/holdings") return this.holdings;
    if (path === "/images") return this.images_kept;
    if (path === "/image/rollback") {
      if (this.status.state !== "stopped") throw Object.assign(NO(409, "the image of a machine that runs cannot be replaced"), { code: "machine-runs", hint: "run `slipway stop` first" });
      const { current, previous } = this.images_kept;
      this.images_kept = { current: previous, previous: current };
      this.setStatus({ image: previous.version });
      return previous.version;
    }
    if (path === "/update") {
      const { from, to } = this.status.update;
      if (this.updateFails) {
        this.setStatus({ update: { from, to, declined: true } });
        throw Object.assign(NO(500, `guest image ${to.version} was not taken`), { code: "update-failed", hint: `the machine runs with image ${from}, as before` });
      }
      this.images_kept = { current: to, previous: this.images_kept.current };
      this.setStatus({ image: to.version, update: undefined });
      return { from, to: to.version, state: this.status.state };
    }
    if (path === "/disk") return this.disk;
    if (path === "/disk/trim") {
      const before = this.disk.host_bytes;
      this.disk.host_bytes = this.disk.guest_bytes;
      return { before_bytes: before, after_bytes: this.disk.host_bytes };
    }
    if (path === "/mounts") {
      if (method === "POST") this.mounts.mounts.push({ ...body, guest_path: body.path, origin: "added", watched: [] });
      return this.mounts;
    }
    if (path === "/mounts/remove") {
      this.mounts.mounts = this.mounts.mounts.filter((m) => m.path !== body.path);
      return this.mounts;
    }
    if (path === "/start" && this.status.state !== "running") this.setStatus({ state: "starting", phases: this.phases.slice(0, 2).map((p, i) => (i ? { ...p, state: "running", ended_ms: null } : p)) });
    if (path === "/pause") this.setStatus({ state: "paused" });
    if (path === "/resume") this.setStatus({ state: "running" });
    if (path === "/stop") this.setStatus({ state: "stopped", engine: null, machine: null });
    return this.status;
  }

  #engine(method, path, query, body) {
    const [, kind, id, verb] = path.split("/").map(decodeURIComponent);
    if (this.engineError) throw NO(500, this.engineError);
    if (path === "/containers/json") {
      const ids = JSON.parse(query.get("filters") ?? "{}").id;
      return ids ? this.containers.filter((c) => ids.includes(c.Id)) : this.containers;
    }
    if (path === "/images/json") return this.images;
    if (path === "/volumes") return { Volumes: this.volumes };
    if (path === "/networks") return this.networks;
    if (path === "/system/df") return { BuildCache: this.buildCache, Volumes: this.volumes.map((v, i) => ({ ...v, UsageData: { Size: (i + 1) * 48_200_000, RefCount: 1 } })) };
    if (kind === "containers" && id === "create") {
      const made = { ...structuredClone(this.containers[0]), Id: "f".repeat(64), Names: [`/${query.get("name") ?? "quick_otter"}`], Image: body.Image, State: "created", Status: "Created", Labels: {}, Ports: [] };
      this.containers.unshift(made);
      this.event("container", "create", made.Id);
      return { Id: made.Id };
    }
    if (kind === "containers" && id === "prune") {
      const gone = this.containers.filter((c) => c.State === "exited" || c.State === "created");
      this.containers = this.containers.filter((c) => !gone.includes(c));
      for (const c of gone) this.event("container", "destroy", c.Id);
      return { ContainersDeleted: gone.map((c) => c.Id), SpaceReclaimed: 12_300_000 };
    }
    if (kind === "containers") return this.#container(method, id, verb);
    if (kind === "exec") return verb === "json" ? { ExitCode: 0 } : {};
    if (kind === "images") return this.#image(method, path);
    if (path === "/volumes/create") {
      const made = { ...this.volumes[0], Name: body.Name, Mountpoint: `/var/lib/docker/volumes/${body.Name}/_data` };
      this.volumes.push(made);
      this.event("volume", "create", body.Name);
      return made;
    }
    if (kind === "volumes" && method === "DELETE") {
      this.volumes = this.volumes.filter((v) => v.Name !== id);
      this.event("volume", "destroy", id);
      return null;
    }
    if (kind === "networks") return { ...this.networks.find((n) => n.Id === id), Containers: this.members };
    return {};
  }

  #container(method, id, verb) {
    const c = this.#find(id);
    const become = (State, Status, action) => {
      Object.assign(c, { State, Status });
      this.event("container", action, c.Id);
    };
    if (method === "DELETE") {
      this.containers = this.containers.filter((other) => other !== c);
      this.event("container", "destroy", c.Id);
      return null;
    }
    if (verb === "json") return { ...structuredClone(this.detail), Id: c.Id, Name: c.Names[0], State: { ...this.detail.State, Status: c.State, Running: c.State === "running", Pid: c.State === "running" ? 4711 : 0 } };
    if (verb === "start" || verb === "unpause") become("running", "Up 1 second", "start");
    if (verb === "stop") become("exited", "Exited (0) 1 second ago", "die");
    if (verb === "kill") become("exited", "Exited (137) 1 second ago", "die");
    if (verb === "pause") become("paused", "Up 3 minutes (Paused)", "pause");
    if (verb === "exec") return { Id: "e".repeat(64) };
    if (verb === "changes") return [{ Path: "/etc/hosts", Kind: 0 }, { Path: "/etc/app.conf", Kind: 1 }, { Path: "/etc/motd", Kind: 2 }];
    return null;
  }

  #image(method, path) {
    const found = this.images.find((i) => path.includes(i.Id) || (i.RepoTags ?? []).some((tag) => path.includes(tag)));
    if (path.endsWith("/prune")) return { ImagesDeleted: [], SpaceReclaimed: 99_000_000 };
    if (method === "DELETE") {
      this.images = this.images.filter((i) => i !== found);
      this.event("image", "delete", found.Id);
      return [];
    }
    return path.endsWith("/history") ? this.history : { ...this.imageDetail, Id: found?.Id, RepoTags: found?.RepoTags };
  }

  async stream(which, method, path, _body, send, end) {
    if (which === "control" && this.unreachable) throw Object.assign(new Error("failed to connect to `/home/anna/.slipway/run/api.sock`"), { code: "daemon-unreachable" });
    const { pathname, searchParams } = new URL(path, "http://x");
    if (method !== "GET") this.acts.push({ which, method, path });
    const kind = pathname === "/v1/status/watch" ? "status" : pathname === "/v1/ports/watch" ? "ports" : pathname === "/events" ? "events" : null;
    this.streams += 1;
    const over = [() => (this.streams -= 1)];
    const stop = () => over.splice(0).forEach((f) => f());
    stop.begin = () => {
      if (kind) {
        this.watchers[kind].add(send);
        over.push(() => this.watchers[kind].delete(send));
        if (kind === "status") send(line(this.status));
        if (kind === "ports") send(line(this.ports));
      } else if (pathname.endsWith("/stats")) this.#stats(send, over);
      else if (pathname.endsWith("/logs")) this.#logs(pathname, send, end);
      else if (pathname === "/images/create") this.#pull(searchParams, send, end, over);
      else if (pathname.endsWith("/archive")) end();
      else end();
    };
    return stop;
  }

  #stats(send, over) {
    let n = 0;
    const tick = () => {
      n += 1;
      const wave = 0.04 + 0.03 * Math.sin(n / 3) + (n % 7 === 0 ? 0.05 : 0);
      const all = n * 2e9;
      const used = (k) => Math.round(k * 2e9 * wave);
      send(
        line({
          read: new Date(Date.now() - (this.statsPast ?? 0) + n * 1000).toISOString(),
          cpu_stats: { cpu_usage: { total_usage: used(1) }, system_cpu_usage: all, online_cpus: 2 },
          precpu_stats: { cpu_usage: { total_usage: 0 }, system_cpu_usage: all - 2e9 },
          memory_stats: { usage: 84_000_000 + 6_000_000 * Math.sin(n / 5), limit: 4_200_000_000, stats: { inactive_file: 12_000_000 } },
          networks: { eth0: { rx_bytes: n * 12_000 + 8000 * (n % 5), tx_bytes: n * 4000 } },
          blkio_stats: { io_service_bytes_recursive: [{ op: "read", value: n * 30_000 }, { op: "write", value: n * 90_000 }] },
          pids_stats: { current: 7 },
        }),
      );
    };
    for (let i = 0; i < (this.statsAtOnce ?? 40); i++) tick();
    const timer = setInterval(tick, 1000);
    over.push(() => clearInterval(timer));
  }

  #logs(pathname, send, end) {
    if (pathname === "/v1/logs") {
      for (const l of this.daemonLog) send(line(l));
      return;
    }
    let block = [];
    for (const [i, [stream, text]] of this.log.entries()) {
      block.push(frame(stream, `${new Date(1795740000000 + i * 137).toISOString().replace("Z", "000000Z")} ${text}\n`));
      if (block.length === 500) send(Buffer.concat(block.splice(0)));
    }
    if (block.length) send(Buffer.concat(block));
    if (this.logEnds) end();
  }

  #pull(query, send, end, over) {
    const reference = `${query.get("fromImage")}:${query.get("tag")}`;
    if (reference.startsWith("missing")) {
      send(line({ error: `manifest for ${reference} not found` }));
      return end();
    }
    let n = 0;
    const total = 28_000_000;
    send(line({ status: `Pulling from ${query.get("fromImage")}`, id: query.get("tag") }));
    for (const id of ["6e771e15690e", "58afefdc6a9a", "d1e2f3a4b5c6"]) send(line({ status: "Pulling fs layer", id }));
    const timer = setInterval(() => {
      n += 1;
      for (const [i, id] of ["6e771e15690e", "58afefdc6a9a", "d1e2f3a4b5c6"].entries()) {
        const current = Math.min(total / (i + 1), (n * total) / 24);
        send(line({ status: current < total / (i + 1) ? "Downloading" : "Pull complete", id, progressDetail: { current, total: total / (i + 1) } }));
      }
      if (n < (this.pullSteps ?? 30)) return;
      clearInterval(timer);
      this.images.unshift({ ...structuredClone(this.images[0]), Id: `sha256:${"9".repeat(64)}`, RepoTags: [reference], SharedSize: 0 });
      this.event("image", "pull", reference);
      end();
    }, 100);
    over.push(() => clearInterval(timer));
  }

  async open(which, _method, path, body, send, end) {
    if (which === "control") return this.#machineProgram(body, send, end);
    let text = "";
    return {
      begin: () => send(bytes("root@shop-api:/srv# ")),
      write: (data) => {
        send(data);
        for (const c of data.toString()) {
          if (c !== "\r") {
            text += c;
            continue;
          }
          send(bytes(text.trim() === "exit" ? "\r\n" : `\r\n${text.trim() === "ls" ? "\x1b[34mdata\x1b[0m  index.html  server\r\n" : ""}root@shop-api:/srv# `));
          if (text.trim() === "exit") end();
          text = "";
        }
      },
      closeWrite() {},
      close() {},
    };
  }

  #machineProgram(body, send, end) {
    const out = (kind, payload) => {
      const head = Buffer.alloc(5);
      head[0] = kind;
      head.writeUInt32BE(payload.length, 1);
      send(Buffer.concat([head, payload]));
    };
    const exit = () => {
      const code = Buffer.alloc(4);
      out(4, code);
      end();
    };
    const script = body.argv[2] ?? "";
    let timer;
    return {
      begin: () => {
        if (script.includes("/proc/meminfo")) {
          let n = 0;
          const tick = () => {
            n += 1;
            out(1, bytes(`cpu  ${n * 30} 0 ${n * 12} ${n * 350} 8 0 0 0 0 0|4194304 ${2900000 - 9000 * (n % 9)}|4096 26214400 19000000\n`));
          };
          tick();
          tick();
          timer = setInterval(tick, 2000);
        } else if (script.includes("-print0")) {
          const names = this.files.map((f) => f.name);
          out(1, Buffer.concat([...names.map((n) => bytes(`./${n}\0`)), bytes("\0"), bytes(this.files.map((f) => `${f.mode} ${f.size} ${f.mtime} 0 0`).join("\n"))]));
          exit();
        } else if (script.includes("head -c")) {
          out(1, bytes("listen = 0.0.0.0:80\nworkers = 4\n"));
          exit();
        } else if (body.argv.length === 0) out(1, bytes("slipway:~# "));
        else exit();
      },
      write() {},
      closeWrite() {},
      close: () => clearInterval(timer),
    };
  }

  async transfer(kind, { path, file }, say) {
    this.acts.push({ kind, path, file });
    const total = 60_000_000;
    for (let n = 1; n <= (this.transferSteps ?? 10); n++) {
      await new Promise((done) => setTimeout(done, 30));
      say(kind === "upload" ? { sent: (n * total) / 10, total } : { received: (n * total) / 10 });
    }
    if (kind === "upload" && path.startsWith("/images/load")) say({ chunk: `${JSON.stringify({ stream: "Loaded image: shop/api:2.4\n" })}\n` });
  }
}
