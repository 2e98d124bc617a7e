// The bridge's HTTP front in node, for the browser tests: serves `dist`, and hands what the page asks to a target.
// A target is a scripted engine (see `scripted.mjs`), or the sockets of a real Slipway (`node e2e/bridge.mjs API DOCKER`).
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import http from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const DIST = fileURLToPath(new URL("../dist", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2", ".svg": "image/svg+xml" };
// The same as the real bridge's: a test that needs more would pass here and fail there.
const CSP = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; connect-src 'self' ws://127.0.0.1:*";

/** What is asked of `/bridge/stream/engine/x?y=1&slipway-method=GET`: the bridge's own words are taken out of the query. */
function asked(url, kind) {
  const { pathname, searchParams } = new URL(url, "http://bridge");
  const [, , , target, ...rest] = kind ? pathname.split("/") : ["", ...pathname.split("/")];
  const method = searchParams.get("slipway-method") ?? "GET";
  const body = searchParams.get("slipway-body");
  searchParams.delete("slipway-method");
  searchParams.delete("slipway-body");
  const query = searchParams.toString();
  return { target, method, path: `/${rest.join("/")}${query ? `?${query}` : ""}`, body: body === null ? undefined : JSON.parse(body) };
}

/**
 * `target.request(target, method, path, body)` gives `{status, json}`; `target.stream(…, send)` gives a function that ends it, or
 * throws `{status, message}`; `target.open(…, send, end)` gives `{write, closeWrite, close}`.
 */
export function serve(target, port = 0) {
  const server = http.createServer(async (request, response) => {
    try {
      if (request.url.startsWith("/bridge/")) await answer(target, request, response);
      else await file(request, response);
    } catch (error) {
      response.writeHead(502, { "content-type": "application/json", "x-slipway-problem": "1" });
      response.end(JSON.stringify({ code: error.code ?? "bridge", message: error.message ?? String(error), hint: error.hint }));
    }
  });
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets.on("connection", (ws, request) => connection(target, ws, request.url));
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => {
      const url = `http://127.0.0.1:${server.address().port}`;
      resolve({
        url,
        close: () => {
          for (const ws of sockets.clients) ws.terminate();
          server.closeAllConnections();
          return new Promise((done) => server.close(done));
        },
      });
    });
  });
}

async function answer(target, request, response) {
  const json = (status, value) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value ?? null));
  };
  const { pathname, searchParams } = new URL(request.url, "http://bridge");
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const body = text ? JSON.parse(text) : undefined;
  if (pathname === "/bridge/platform") return json(200, target.platform ?? { os: "linux", version: "0.1.0", dockerConfig: "/home/anna/.docker", profile: "default", window: false });
  if (pathname === "/bridge/autostart") return json(200, null);
  if (pathname === "/bridge/build-history") {
    response.writeHead(200, { "content-type": "text/plain" });
    return response.end(await target.buildHistory(body.verb, body.reference));
  }
  if (pathname === "/bridge/rebuild") {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    const line = (value) => !response.destroyed && response.write(`${JSON.stringify(value)}\n`);
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    try {
      await target.rebuild(body, (chunk) => line({ chunk }), gone.signal);
      line({ done: true });
    } catch (error) {
      line({ error: { code: error.code ?? "buildx-refused", message: error.message, causes: error.causes } });
    }
    return response.end();
  }
  if (pathname === "/bridge/start-daemon") return json(200, await target.startDaemon?.());
  if (pathname === "/bridge/upload" || pathname === "/bridge/download") {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    const line = (value) => response.write(`${JSON.stringify(value)}\n`);
    try {
      await target.transfer(pathname.slice(8), Object.fromEntries(searchParams), line);
      line({ done: true });
    } catch (error) {
      line({ error: { code: "engine-refused", message: error.message } });
    }
    return response.end();
  }
  const which = pathname.split("/")[2];
  const path = request.url.slice(`/bridge/${which}`.length);
  const { status, json: value } = await target.request(which, request.method, path, body);
  if (status === 204 || status === 304) {
    response.writeHead(status);
    return response.end();
  }
  json(status, value);
}

async function connection(target, ws, url) {
  const { pathname } = new URL(url, "http://bridge");
  const kind = pathname.split("/")[2];
  const { target: which, method, path, body } = asked(url, kind);
  const send = (bytes) => ws.readyState === ws.OPEN && ws.send(Buffer.from(bytes), { binary: true });
  const end = (code = 1000) => ws.close(code);
  try {
    if (kind === "stream") {
      const stop = await target.stream(which, method, path, body, send, end);
      if (ws.readyState !== ws.OPEN) return stop?.();
      ws.on("close", () => stop?.());
      ws.send(JSON.stringify({ status: 200 }));
      stop?.begin?.();
    } else {
      const duplex = await target.open(which, method, path, body, send, end);
      ws.send(JSON.stringify({ status: 101 }));
      ws.on("message", (data, binary) => (binary ? duplex.write(data) : duplex.closeWrite()));
      ws.on("close", () => duplex.close());
      duplex.begin?.();
    }
  } catch (error) {
    if (ws.readyState === ws.OPEN) ws.send(JSON.stringify({ error: { code: error.code ?? "engine-refused", message: error.message ?? String(error), hint: error.hint }, status: error.status }));
    ws.close(1000);
  }
}

async function file(request, response) {
  const { pathname } = new URL(request.url, "http://bridge");
  const path = join(DIST, normalize(pathname === "/" ? "/index.html" : pathname));
  if (!path.startsWith(DIST) || !(await stat(path).catch(() => null))?.isFile()) {
    response.writeHead(404);
    return response.end();
  }
  response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream", "content-security-policy": CSP });
  createReadStream(path).pipe(response);
}

/** The sockets of a real Slipway as a target. */
export function real(sockets) {
  const ask = (which, method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const request = http.request({
        socketPath: sockets[which],
        method,
        path,
        headers: { host: "slipway", ...(text === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) }), ...headers },
      });
      request.on("response", resolve);
      request.on("upgrade", (response, socket, head) => resolve({ upgraded: socket, head, statusCode: 101 }));
      request.on("error", (error) => reject(Object.assign(error, { code: which === "control" ? "daemon-unreachable" : "engine-unreachable" })));
      request.end(text);
    });
  const read = async (response) => {
    const chunks = [];
    for await (const chunk of response) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  };
  const refused = async (response) => {
    const text = await read(response);
    let message = text;
    try {
      message = JSON.parse(text).message;
    } catch {
      // Then the text is what there is.
    }
    return Object.assign(new Error(message), { status: response.statusCode });
  };
  return {
    async request(which, method, path, body) {
      const response = await ask(which, method, path, body);
      const text = await read(response);
      let json = text;
      try {
        json = text ? JSON.parse(text) : null;
      } catch {
        // Plain text is an answer too.
      }
      return { status: response.statusCode, json };
    },
    async stream(which, method, path, body, send, end) {
      const response = await ask(which, method, path, body);
      if (response.statusCode >= 400) throw await refused(response);
      const stop = () => response.destroy();
      stop.begin = () => {
        response.on("data", send);
        response.on("end", () => end());
        response.on("error", () => end(1011));
      };
      return stop;
    },
    async open(which, method, path, body, send, end) {
      const response = await ask(which, method, path, body, { connection: "Upgrade", upgrade: which === "control" ? "slipway-exec" : "tcp" });
      if (!response.upgraded) throw await refused(response);
      const socket = response.upgraded;
      return {
        begin() {
          if (response.head.length) send(response.head);
          socket.on("data", send);
          socket.on("close", () => end());
          socket.on("error", () => end());
        },
        write: (bytes) => socket.write(bytes),
        closeWrite: () => socket.end(),
        close: () => socket.destroy(),
      };
    },
    async transfer(kind, { path, file: hostFile, method = "POST" }, line) {
      if (kind === "download") {
        const response = await ask("engine", "GET", path);
        if (response.statusCode >= 400) throw await refused(response);
        const { writeFile } = await import("node:fs/promises");
        const chunks = [];
        let received = 0;
        for await (const chunk of response) {
          chunks.push(chunk);
          line({ received: (received += chunk.length) });
        }
        return writeFile(hostFile, Buffer.concat(chunks));
      }
      const bytes = await readFile(hostFile);
      const response = await new Promise((resolve, reject) => {
        const request = http.request({ socketPath: sockets.engine, method, path, headers: { host: "slipway", "content-type": "application/x-tar", "content-length": bytes.length } }, resolve);
        request.on("error", reject);
        request.end(bytes);
      });
      line({ sent: bytes.length, total: bytes.length });
      if (response.statusCode >= 400) throw await refused(response);
      for await (const chunk of response) line({ chunk: chunk.toString() });
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [api, docker, port] = process.argv.slice(2);
  const { url } = await serve(real({ control: api, engine: docker }), Number(port ?? 0));
  console.log(url);
}
