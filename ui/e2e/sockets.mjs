// The scripted daemon and engine on sockets, for the real window: `node e2e/sockets.mjs FOLDER CONTAINERS LINES`. Its first line says
// that both answer. They live in FOLDER as `api.sock` and `docker.sock`, until the input ends.
import http from "node:http";
import { join } from "node:path";
import { container, hex } from "./fixtures.mjs";
import { Scripted } from "./scripted.mjs";

const [folder, containers, lines] = process.argv.slice(2);
const many = Array.from({ length: Number(containers) }, (_, i) => ({
  ...container(1, `container-${String(i).padStart(4, "0")}`, "nginx:1", "running", "Up 3 minutes", { ports: [[10000 + i, 80]] }),
  Id: i === 0 ? hex(1) : i.toString(16).padStart(64, "0"),
}));
const log = Array.from({ length: Number(lines) }, (_, i) => [1 + (i % 9 === 0), `\x1b[32m${i}\x1b[0m line of a log that is neither short nor long`]);
const script = new Scripted({ containers: many, log });
script.setStatus({ socket: join(folder, "docker.sock"), docker: null });

/** Answers that have no end of their own. */
const STREAMS = /^\/v1\/(status|ports)\/watch$|^\/v1\/logs$|^\/events$|\/(stats|logs|archive)$|^\/images\/create$/;

function serve(which, socket) {
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const body = text ? JSON.parse(text) : undefined;
    try {
      if (STREAMS.test(new URL(request.url, "http://x").pathname)) {
        const stop = await script.stream(which, request.method, request.url, body, (bytes) => response.write(bytes), () => response.end());
        response.writeHead(200);
        response.on("close", () => stop());
        return stop.begin?.();
      }
      const { status, json } = await script.request(which, request.method, request.url, body);
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(json ?? null));
    } catch (error) {
      response.writeHead(error.status ?? 500, { "content-type": "application/json" });
      response.end(JSON.stringify({ code: "scripted", message: error.message }));
    }
  });
  server.on("upgrade", async (request, socket, head) => {
    const chunks = [head];
    const length = Number(request.headers["content-length"] ?? 0);
    const size = () => chunks.reduce((sum, c) => sum + c.length, 0);
    while (size() < length) chunks.push(await new Promise((read) => socket.once("data", read)));
    const body = length ? JSON.parse(Buffer.concat(chunks).subarray(0, length).toString()) : undefined;
    const duplex = await script.open(which, request.method, request.url, body, (bytes) => socket.write(bytes), () => socket.end());
    socket.write(`HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: ${request.headers.upgrade}\r\n\r\n`);
    socket.on("data", (bytes) => duplex.write(bytes));
    socket.on("close", () => duplex.close());
    socket.on("error", () => duplex.close());
    duplex.begin?.();
  });
  return new Promise((listening) => server.listen(join(folder, socket), listening));
}

await Promise.all([serve("control", "api.sock"), serve("engine", "docker.sock")]);
console.log("ready");
process.stdin.resume().on("end", () => process.exit(0));
