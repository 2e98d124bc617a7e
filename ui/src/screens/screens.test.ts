import { describe, expect, it, vi } from "vitest";
import type { Check, Setting } from "../backend";
import type { Container } from "../engine/types";
import { rank, type Entry } from "../shell/palette-entries";
import { readUsage } from "../state/meters.svelte";
import { address, parse } from "../state/route.svelte";
import { ago, bytes, memory } from "../texts/format";
import { containers } from "../engine/containers";
import { followLogs, nextNanosecond } from "./containers/follow-logs";
import { keyOf, rowsOf, type View } from "./containers/rows";
import { stateWords } from "./containers/state-words";
import { instruction } from "./images/instruction";
import { LayerProgress } from "./images/layers";
import { config, emptyForm, mistakes, offer, words } from "./images/run-config";
import { jsonObjectMistake } from "./settings/daemon-json";
import { kindOf, sectionOf } from "./settings/kinds";
import { bundleName, bySeverity, mendable } from "./troubleshoot/doctor";

const container = (name: string, State: string, project?: string, more: Partial<Container> = {}): Container =>
  ({ Id: `id-${name}`, Names: [`/${name}`], Image: "img:1", State, Status: "", Created: 1, Ports: [], Labels: project ? { "com.docker.compose.project": project } : {}, ...more }) as Container;

describe("the list of containers", () => {
  const all = [container("b2", "exited", "shop"), container("b10", "running", "shop"), container("alone", "running"), container("a1", "running", "docs")];
  const view: View = { words: "", onlyRunning: false, grouped: true, closed: new Set(), sort: { by: "name", down: false } };
  const keys = (changes: Partial<View>) => rowsOf(all, { ...view, ...changes }).map(keyOf);
  it("groups by project, in the order of names as people count", () => {
    expect(keys({})).toEqual(["project/docs", "id-a1", "project/shop", "id-b2", "id-b10", "id-alone"]);
    expect(keys({ closed: new Set(["shop"]) })).toEqual(["project/docs", "id-a1", "project/shop", "id-alone"]);
  });
  it("filters by all words and hides what does not run", () => {
    expect(keys({ words: "shop b10" })).toEqual(["project/shop", "id-b10"]);
    expect(keys({ onlyRunning: true, grouped: false })).toEqual(["id-a1", "id-alone", "id-b10"]);
  });
  it("says the state with its reason", () => {
    expect(stateWords(container("x", "exited", undefined, { Status: "Exited (137) 2 hours ago" }))).toBe("Exit code 137, 2 hours ago (killed)");
    expect(stateWords(container("x", "exited", undefined, { Status: "Exited (0) 2 hours ago" }))).toBe("Stopped 2 hours ago");
    expect(stateWords(container("x", "running", undefined, { Status: "Up 2 hours (healthy)" }))).toBe("Up 2 hours");
  });
});

describe("the run dialog", () => {
  it("cuts a command as a shell does", () => {
    expect(words(`sh -c "echo 'a b' \\"c\\"" x\\ y ''`)).toEqual(["sh", "-c", `echo 'a b' "c"`, "x y", ""]);
  });
  it("begins with what the image exposes and leaves out what is not filled in", () => {
    const form = emptyForm();
    offer(form, { Config: { ExposedPorts: { "80/tcp": {}, "53/udp": {} }, Volumes: { "/data": {} } } } as never);
    form.ports[0].host = "8080";
    form.volumes[0].source = "/home/a";
    form.environment.push({ name: "A", value: "b=c" }, { name: "", value: "x" });
    expect(mistakes(form).any).toBe(false);
    expect(config("img", form)).toMatchObject({
      Image: "img",
      Cmd: undefined,
      Env: ["A=b=c"],
      ExposedPorts: { "80/tcp": {} },
      HostConfig: { PortBindings: { "80/tcp": [{ HostPort: "8080" }] }, Mounts: [{ Type: "bind", Source: "/home/a", Target: "/data", ReadOnly: false }] },
    });
  });
  it("tells every mistake at once", () => {
    const form = emptyForm();
    form.ports.push({ host: "70000", container: "80", protocol: "tcp" }, { host: "80", container: "", protocol: "tcp" });
    form.volumes.push({ source: "v", target: "data", readOnly: false });
    const wrong = mistakes(form);
    expect([...wrong.ports, ...wrong.volumes].filter(Boolean)).toHaveLength(3);
  });
});

it("a pull's progress is the sum of its layers, and unpacking does not turn it back", () => {
  const progress = new LayerProgress();
  expect(progress.fraction).toBeNull();
  progress.add({ status: "Pulling from x", id: "latest" });
  progress.add({ status: "Downloading", id: "a", progressDetail: { current: 50, total: 100 } });
  progress.add({ status: "Downloading", id: "b", progressDetail: { current: 100, total: 300 } });
  expect(progress.fraction).toBeCloseTo(150 / 400);
  progress.add({ status: "Extracting", id: "a", progressDetail: { current: 1, total: 100 } });
  progress.add({ status: "Pull complete", id: "b" });
  expect(progress.fraction).toBe(1);
});

it("layers are told as the instruction that made them", () => {
  expect(instruction("RUN /bin/sh -c npm ci # buildkit")).toEqual(["RUN", "npm ci"]);
  expect(instruction('/bin/sh -c #(nop)  CMD ["sh"]')).toEqual(["CMD", '["sh"]']);
  expect(instruction("/bin/sh -c apt-get update")).toEqual(["RUN", "apt-get update"]);
});

describe("settings", () => {
  const setting = (name: string, expected: string) => ({ name, expected }) as Setting;
  it("get the control that the daemon's words ask for", () => {
    expect(kindOf(setting("a", "`true` or `false`"))).toEqual({ is: "switch" });
    expect(kindOf(setting("a", "`auto` or `kvm` or `tcg`"))).toEqual({ is: "choice", words: ["auto", "kvm", "tcg"] });
    expect(kindOf(setting("a", "a whole number from 1 to 256"))).toEqual({ is: "number", from: 1, to: 256 });
    expect(kindOf(setting("a", "`auto`, `none`, or an address such as `http://proxy:3128`"))).toEqual({ is: "text" });
    expect(kindOf(setting("a", "a size of at least 512MiB, such as `4GiB`"))).toEqual({ is: "text" });
  });
  it("that nobody here has heard of are within reach", () => {
    expect(sectionOf("novelty.flag")).toBe("advanced");
  });
  it("of the engine are checked before they leave", () => {
    expect(jsonObjectMistake("")).toBeNull();
    expect(jsonObjectMistake('{"debug": true}')).toBeNull();
    expect(jsonObjectMistake("[]")).not.toBeNull();
    expect(jsonObjectMistake("{")).not.toBeNull();
  });
});

it("an address leads back to its place, with names that have slashes", () => {
  const place = { screen: "volumes", id: "a/b %?#", tab: "info" } as const;
  expect(parse(address(place))).toEqual(place);
  expect(parse("#/nowhere")).toEqual({ screen: "containers", id: null, tab: null });
  expect(parse("#/containers/%E0%A4%A")).toEqual({ screen: "containers", id: "%E0%A4%A", tab: null });
});

it("the palette finds by all words and shows what begins with them first", () => {
  const entry = (title: string, detail = "") => ({ id: title, group: "Containers", title, detail }) as Entry;
  expect(rank([entry("my-web"), entry("web"), entry("db", "web")], "web").map((e) => e.title)).toEqual(["web", "my-web", "db"]);
  expect(rank([entry("web", "logs"), entry("web2", "stop")], "web logs").map((e) => e.title)).toEqual(["web"]);
});

it("numbers are told as a person reads them", () => {
  expect([0, 999, 1000, 1_310_000, 438_000_000, 29_600_000_000].map(bytes)).toEqual(["0 B", "999 B", "1.00 KB", "1.31 MB", "438 MB", "29.6 GB"]);
  expect(memory(84 * 1048576)).toBe("84 MiB");
  expect(ago(1000, 1000 + 86400 * 3)).toBe("3 days ago");
  expect(ago(0)).toBe("–");
});

it("the machine's numbers are read, and what is no such line is not", () => {
  const first = readUsage("cpu  100 0 100 800 0 0 0 0 0 0|4000 1000|4096 100 25", null);
  expect(first?.usage).toMatchObject({ cpu: 0, memory: 3000 * 1024, disk: 75 * 4096 });
  expect(readUsage("cpu  150 0 150 900 0 0 0 0 0 0|4000 1000|4096 100 25", first?.cpu ?? null)?.usage.cpu).toBe(50);
  expect(readUsage("sh: stat: not found", null)).toBeNull();
});

it("a log goes on behind the last line that was seen", () => {
  expect(nextNanosecond("2026-11-27T00:00:00.999999999Z")).toBe(`${Date.parse("2026-11-27T00:00:01Z") / 1000}.000000000`);
  expect(nextNanosecond("2026-11-27T00:00:00.5Z")).toBe(`${Date.parse("2026-11-27T00:00:00Z") / 1000}.500000001`);
});

it("a log that is followed anew loses no line that came just before", () => {
  const asked = vi.spyOn(containers, "logs").mockImplementation(async (_id, _tty, _tail, since, _follow, onLine) => {
    if (since === undefined) onLine("stdout", "2026-11-27T00:00:00.5Z first");
  });
  const after = { time: "" };
  const shown: string[] = [];
  const follow = () => followLogs("id", "name", false, after, (lines) => shown.push(...lines.map((l) => l.text)), () => {}, "");
  follow()();
  follow()();
  expect(asked.mock.calls.map((call) => call[3])).toEqual([undefined, nextNanosecond("2026-11-27T00:00:00.5Z")]);
  expect(shown).toEqual(["first"]);
  asked.mockRestore();
});

describe("what the doctor finds", () => {
  const check = (id: string, state: Check["state"], fixable = false): Check => ({ id, state, message: "", fixable, fixed: false });
  it("is read by its weight, and else in the doctor's order", () => {
    const all = [check("a", "ok"), check("b", "not-applicable"), check("c", "warning"), check("d", "failed"), check("e", "ok")];
    expect(bySeverity(all).map((c) => c.id)).toEqual(["d", "c", "a", "e", "b"]);
  });
  it("has a fix only where something is wrong", () => {
    expect([check("a", "ok", true), check("b", "warning", true), check("c", "failed")].map(mendable)).toEqual([false, true, false]);
  });
  it("goes into a file that is named as the command names it", () => {
    expect(bundleName(new Date("2026-11-24T09:30:00.123Z"))).toBe("slipway-diagnose-20261124T093000Z.tar.gz");
  });
});
