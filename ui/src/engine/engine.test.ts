import { describe, expect, it } from "vitest";
import { parseBuilds, parseSteps, sourceOf } from "./builds";
import { exitCode, publishedPorts, toneOf } from "./containers";
import { dockerRun, quoted } from "./docker-run";
import { frame, Frames, Kind } from "./exec";
import { joined, parseListing, resolvePath } from "./files";
import { splitReference } from "./images";
import { Lines } from "./lines";
import { Demuxer, OutputLines, splitTime } from "./logs";
import { usageOf } from "./stats";
import { TarReader, type TarEntry } from "./tar";
import type { Container, ContainerDetail, StatsLine } from "./types";

const bytes = (text: string) => new TextEncoder().encode(text);
/** Every way of cutting in two and byte by byte: streams come in any pieces. */
function pieces(all: Uint8Array): Uint8Array[][] {
  const ways = Array.from({ length: all.length + 1 }, (_, i) => [all.slice(0, i), all.slice(i)]);
  ways.push(Array.from(all, (b) => Uint8Array.of(b)));
  return ways;
}

describe("lines", () => {
  it("are the same however the bytes come, with characters that are cut", () => {
    for (const way of pieces(bytes("ä€\n\n😀 b\nlast"))) {
      const found: string[] = [];
      const lines = new Lines((l) => found.push(l));
      for (const piece of way) lines.push(piece);
      lines.end();
      expect(found).toEqual(["ä€", "", "😀 b", "last"]);
    }
  });
});

describe("output of containers", () => {
  const block = (stream: number, text: string) => {
    const payload = bytes(text);
    const all = new Uint8Array(8 + payload.length);
    all[0] = stream;
    new DataView(all.buffer).setUint32(4, payload.length);
    all.set(payload, 8);
    return all;
  };
  it("is taken apart at any cut", () => {
    const all = new Uint8Array([...block(1, "one\ntw"), ...block(2, "bad\n"), ...block(1, ""), ...block(1, "o\n")]);
    for (const way of pieces(all)) {
      const found: string[] = [];
      const lines = new OutputLines(false, (source, line) => found.push(`${source} ${line}`));
      for (const piece of way) lines.push(piece);
      lines.end();
      expect(found).toEqual(["stdout one", "stderr bad", "stdout two"]);
    }
  });
  it("of a terminal has no frames and loses its carriage returns", () => {
    const found: string[] = [];
    const lines = new OutputLines(true, (_s, line) => found.push(line));
    lines.push(bytes("a\r\nb\r\n"));
    expect(found).toEqual(["a", "b"]);
  });
  it("of four gigabytes in one frame is no reason to wait for all of it", () => {
    let length = 0;
    const demuxer = new Demuxer((_s, b) => (length += b.length));
    demuxer.push(Uint8Array.of(1, 0, 0, 0, 255, 255, 255, 255, 7, 7));
    expect(length).toBe(2);
  });
  it("has its time before each line", () => {
    expect(splitTime("2026-11-27T01:02:03.5Z a b")).toEqual({ time: "2026-11-27T01:02:03.5Z", text: "a b" });
    expect(splitTime("no time here")).toEqual({ time: "", text: "no time here" });
  });
});

describe("frames of programs in the machine", () => {
  it("come back as they went, at any cut", () => {
    const all = new Uint8Array([...frame(Kind.Stdout, bytes("out")), ...frame(Kind.Stderr, bytes("")), ...frame(Kind.Exit, Uint8Array.of(0, 0, 0, 3))]);
    for (const way of pieces(all)) {
      const found: string[] = [];
      const frames = new Frames((kind, payload) => found.push(`${kind}:${[...payload].join(",")}`));
      for (const piece of way) frames.push(piece);
      expect(found).toEqual(["1:111,117,116", "2:", "4:0,0,0,3"]);
    }
  });
  it("longer than any may be are refused", () => {
    const frames = new Frames(() => {});
    expect(() => frames.push(Uint8Array.of(1, 255, 0, 0, 0))).toThrow();
  });
});

describe("tar", () => {
  function header(name: string, size: number, type = "0", link = ""): Uint8Array {
    const block = new Uint8Array(512);
    block.set(bytes(name), 0);
    block.set(bytes("0000644\0"), 100);
    block.set(bytes(`${size.toString(8).padStart(11, "0")}\0`), 124);
    block.set(bytes("00000000020\0"), 136);
    block[156] = type.charCodeAt(0);
    block.set(bytes(link), 157);
    block.set(bytes("ustar\0"), 257);
    return block;
  }
  const padded = (text: string) => {
    const all = new Uint8Array(Math.ceil(bytes(text).length / 512) * 512);
    all.set(bytes(text));
    return all;
  };
  it("is read in any pieces: long names, links, contents", () => {
    const long = `${"n".repeat(150)}/file`;
    const record = ` path=${long}\n`;
    const pax = `${record.length + 3}${record}`;
    const all = new Uint8Array([...header("dir/", 0, "5"), ...header("pax", pax.length, "x"), ...padded(pax), ...header("short", 5), ...padded("hello"), ...header("l", 0, "2", "/etc"), ...new Uint8Array(1024)]);
    for (const size of [1, 7, 511, 512, 513, all.length]) {
      const entries: TarEntry[] = [];
      let content = "";
      const reader = new TarReader(
        (e) => entries.push(e),
        (_e, b) => (content += new TextDecoder().decode(b)),
      );
      for (let at = 0; at < all.length; at += size) reader.push(all.subarray(at, at + size));
      expect(entries.map((e) => [e.name, e.type, e.size, e.link])).toEqual([["dir/", "5", 0, ""], [long, "0", 5, ""], ["l", "2", 0, "/etc"]]);
      expect(entries[0].mtime).toBe(16);
      expect(content).toBe("hello");
    }
  });
});

describe("files", () => {
  it("are listed with names of any bytes", () => {
    const listing = bytes("./a b\0./line\nbreak\0./<img src=x>\0\0" + "81a4 12 100 0 0\na1ff 3 100 1 2\n41ed 4096 100 0 0\n");
    expect(parseListing(listing)).toEqual([
      { name: "a b", kind: "file", size: 12, mode: 0o644, owner: "0:0", mtime: 100 },
      { name: "line\nbreak", kind: "link", size: 3, mode: 0o777, owner: "1:2", mtime: 100 },
      { name: "<img src=x>", kind: "folder", size: 4096, mode: 0o755, owner: "0:0", mtime: 100 },
    ]);
    expect(parseListing(bytes("\0"))).toEqual([]);
  });
  it("that changed between the two looks have names and no wrong sizes", () => {
    expect(parseListing(bytes("./a\0./b\0\0" + "81a4 12 100 0 0\n")).map((e) => [e.name, e.size])).toEqual([["a", 0], ["b", 0]]);
  });
  it("of links lead nowhere above the root", () => {
    expect(resolvePath("/a/b", "../../../etc")).toBe("/etc");
    expect(resolvePath("/a", "b/./c")).toBe("/a/b/c");
    expect(resolvePath("/a", "/x")).toBe("/x");
    expect(joined("/", "a")).toBe("/a");
  });
});

describe("containers", () => {
  const container = (State: string, Status: string, Ports: Container["Ports"] = []) => ({ State, Status, Ports, Names: ["/x"], Id: "1" }) as Container;
  it("have a tone that their state and its reason give", () => {
    expect(toneOf(container("running", "Up 2 minutes"))).toBe("good");
    expect(toneOf(container("running", "Up 2 minutes (unhealthy)"))).toBe("bad");
    expect(toneOf(container("exited", "Exited (0) 2 hours ago"))).toBe("idle");
    expect(toneOf(container("exited", "Exited (137) 2 hours ago"))).toBe("bad");
    expect(exitCode(container("exited", "Exited (137) 2 hours ago"))).toBe(137);
  });
  it("have each port once, as a link that opens it", () => {
    const ports = publishedPorts(
      container("running", "", [
        { IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp" },
        { IP: "::", PrivatePort: 80, PublicPort: 8080, Type: "tcp" },
        { IP: "::1", PrivatePort: 443, PublicPort: 8443, Type: "tcp" },
        { IP: "0.0.0.0", PrivatePort: 53, PublicPort: 53, Type: "udp" },
        { PrivatePort: 9000, Type: "tcp" },
      ]),
    );
    expect(ports.map((p) => p.url)).toEqual([null, "http://localhost:8080", "https://[::1]:8443"]);
  });
  it("are written as the docker run that makes them", () => {
    const detail = {
      Id: "abcdef",
      Name: "/web 1",
      Config: { Hostname: "abc", User: "", Env: ["A=1", "B=it's"], Cmd: ["serve", "--x"], Entrypoint: null, Image: "nginx:1", Tty: true, OpenStdin: true, WorkingDir: "", Labels: null },
      HostConfig: { Binds: ["/home/a b:/data:ro"], PortBindings: { "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "8080" }], "53/udp": [{ HostIp: "", HostPort: "53" }] }, RestartPolicy: { Name: "on-failure", MaximumRetryCount: 3 }, NetworkMode: "bridge", AutoRemove: true, CapAdd: ["NET_ADMIN"], NanoCpus: 5e8, Memory: 0 },
    } as unknown as ContainerDetail;
    const image = { Config: { Env: ["A=1"], Cmd: ["other"], Entrypoint: null } } as never;
    expect(dockerRun(detail, image)).toBe(
      "docker run -it -d --name 'web 1' --rm --restart on-failure:3 -p 127.0.0.1:8080:80 -p 53:53/udp -v '/home/a b:/data:ro' -e 'B=it'\\''s' --cap-add NET_ADMIN --cpus 0.5 nginx:1 serve --x",
    );
    expect(quoted("$(rm -rf /)")).toBe("'$(rm -rf /)'");
  });
  it("use what their numbers say, and nothing at their first line", () => {
    const line = (system: number | undefined): StatsLine => ({ read: "2026-01-01T00:00:01Z", cpu_stats: { cpu_usage: { total_usage: 300 }, system_cpu_usage: 2000, online_cpus: 2 }, precpu_stats: { cpu_usage: { total_usage: 100 }, system_cpu_usage: system }, memory_stats: { usage: 100, limit: 1000, stats: { inactive_file: 30 } } });
    expect(usageOf(line(1000)).cpu).toBeCloseTo(40);
    expect(usageOf(line(undefined)).cpu).toBe(0);
    expect(usageOf(line(1000)).memory).toBe(70);
  });
});

it("references are split at their tag and not at a registry's port", () => {
  expect(splitReference("a/b:1")).toEqual({ name: "a/b", tag: "1" });
  expect(splitReference("host:5000/a")).toEqual({ name: "host:5000/a", tag: "" });
});

describe("builds", () => {
  it("are read from buildx's lines, whatever stands around them", () => {
    const line = '{"cached_steps":2,"completed_at":"2026-11-27T02:48:48Z","created_at":"2026-11-27T02:48:43Z","name":"ctx","ref":"default/default/c4an8i","status":"Error","total_steps":6}';
    expect(parseBuilds(`WARNING: no such thing\n${line}\n`)).toEqual([{ id: "c4an8i", name: "ctx", state: "failed", started: Date.parse("2026-11-27T02:48:43Z"), ended: Date.parse("2026-11-27T02:48:48Z"), steps: 6, cached: 2 }]);
    expect(parseBuilds("")).toEqual([]);
  });
  it("have steps in the order in which they began, with their times and what they said", () => {
    const vertex = (digest: string, started?: string, completed?: string, more = {}) => ({ digest, name: digest, started: started && `2026-01-01T00:00:${started}Z`, completed: completed && `2026-01-01T00:00:${completed}Z`, ...more });
    const log = (vertex: string, text: string) => ({ vertex, data: btoa(text) });
    const lines = [
      { vertexes: [vertex("b"), vertex("a", "01", "02"), vertex("never")] },
      { vertexes: [vertex("a", "03", "05"), vertex("b", "06", "06", { cached: true }), vertex("c", "07", "09", { error: "exit code: 1" })], logs: [log("c", "one\n"), log("c", "two\n"), log("unknown", "x")] },
    ];
    const found = parseSteps(lines.map((l) => JSON.stringify(l)).join("\n"));
    expect(found.map((s) => [s.name, s.took, s.cached, s.error, s.log])).toEqual([["a", 4000, false, "", ""], ["b", 0, true, "", ""], ["c", 2000, false, "exit code: 1", "one\ntwo\n"], ["never", null, false, "", ""]]);
  });
  it("tell an error at its line", () => {
    expect(sourceOf({ Error: { Sources: btoa(" 2 | >>> RUN x\n") } } as never)).toBe("2 | >>> RUN x");
    expect(sourceOf({} as never)).toBe("");
  });
});
