// The page against the real bridge and the real engine. Runs where a machine runs and `slipway-desktop --serve` gave its address:
//   SLIPWAY_UI_URL=http://127.0.0.1:…/?token=… DOCKER_HOST=unix://…/docker.sock npm run e2e:real
// `tests/ui` runs it so, against the machine of its window.
// It needs `docker` and a static `busybox` on this computer, and leaves nothing behind in the engine.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";

const url = process.env.SLIPWAY_UI_URL;
const skip = url ? false : "SLIPWAY_UI_URL is not set";
const BUSYBOX = ["/bin/busybox", "/usr/bin/busybox"].find(existsSync);
const PATIENCE = 120_000;
let browser, page, dir;
const errors = [];

const docker = (...words) => execFileSync("docker", words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
const quietly = (...words) => {
  try {
    docker(...words);
  } catch {
    // What is not there need not be removed.
  }
};
const go = (hash) => page.evaluate((to) => (location.hash = to), hash);
const row = (name) => page.getByRole("row", { name: new RegExp(`^${name}`) });
const answerPath = async (path) => {
  await page.getByLabel("Path on this computer").fill(path);
  await page.getByRole("button", { name: "Choose", exact: true }).click();
};
function cleanUp() {
  quietly("rm", "-f", "ui-types", "ui-web", "ui-shell", "ui-one", "ui-two");
  quietly("volume", "rm", "-f", "ui-data", "ui-data-copy");
  quietly("network", "rm", "ui-net");
  quietly("rmi", "-f", "ui-shell:1", "ui-shell:again");
}

before(async () => {
  if (skip) return;
  dir = mkdtempSync(join(tmpdir(), "slipway-ui-"));
  const root = join(dir, "root");
  mkdirSync(join(root, "bin"), { recursive: true });
  cpSync(BUSYBOX, join(root, "bin/busybox"));
  for (const name of ["sh", "ls", "echo", "cat", "sleep", "date", "seq", "touch", "rm", "mkdir"]) symlinkSync("busybox", join(root, "bin", name));
  writeFileSync(join(root, "gone.txt"), "will be deleted");
  execFileSync("tar", ["-C", root, "-cf", join(dir, "root.tar"), "."]);
  cleanUp();
  docker("import", "--change", 'CMD ["sh","-c","seq 1 50; echo plain words; touch /made; rm /gone.txt; while :; do date; sleep 1; done"]', join(dir, "root.tar"), "ui-shell:1");
  browser = await launch();
  const context = await browser.newContext({ viewport: { width: 1200, height: 760 }, reducedMotion: "reduce", permissions: ["clipboard-read", "clipboard-write"] });
  page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.addInitScript(() => localStorage.setItem("slipway.met", "1"));
  await page.goto(url);
});
after(async () => {
  if (skip) return;
  await browser.close();
  cleanUp();
  rmSync(dir, { recursive: true, force: true });
});

const real = (name, run) => test(name, { skip, timeout: 4 * PATIENCE }, run);

// The pages' types are those of Docker's SDK, which may be newer than the engine of the image. What they say is always there, is.
real("the engine sends every member that the pages' types say is always there", async () => {
  const socket = process.env.DOCKER_HOST.replace(/^unix:\/\//, "");
  const get = (path) => JSON.parse(execFileSync("curl", ["-sSf", "--unix-socket", socket, `http://engine${path}`], { encoding: "utf8", maxBuffer: 64 << 20 }));
  const source = readFileSync(new URL("../src/engine/types.ts", import.meta.url), "utf8");
  const said = new Map([...source.matchAll(/Read<\s*api\.(\w+),((?:\s*\|?\s*"\w+")+)/g)].map(([, type, names]) => [type, [...names.matchAll(/\w+/g)].map(([name]) => name)]));
  const id = docker("create", "--name", "ui-types", "-p", "0:80", "ui-shell:1");
  docker("volume", "create", "ui-data");
  const inspected = get(`/containers/${id}/json`);
  const answers = {
    ContainerSummary: get("/containers/json?all=1"),
    ContainerInspectResponse: [inspected],
    ContainerState: [inspected.State],
    ContainerConfig: [inspected.Config],
    HostConfig: [inspected.HostConfig],
    ImageSummary: get("/images/json"),
    ImageInspect: [get("/images/ui-shell:1/json")],
    HistoryResponseItem: get("/images/ui-shell:1/history"),
    Volume: get("/volumes").Volumes,
    NetworkInspect: get("/networks").map(({ Id }) => get(`/networks/${Id}`)),
  };
  quietly("rm", "-f", "ui-types");
  quietly("volume", "rm", "-f", "ui-data");
  for (const [type, all] of Object.entries(answers)) {
    assert.ok(said.get(type)?.length > 2 && all.length > 0, `${type} is among the types and the answers`);
    for (const one of all) for (const name of said.get(type)) assert.ok(name in one, `${type}.${name} is not in the engine's answer: ${Object.keys(one)}`);
  }
});

real("the welcome container is run with a port, which this computer then serves", async () => {
  await go("/images");
  await page.getByRole("button", { name: /^Run slipway\/welcome/ }).click();
  await page.getByLabel("Name", { exact: true }).fill("ui-web");
  await page.getByRole("button", { name: "Add a port" }).click();
  await page.getByLabel("Port on this computer").last().fill("18099");
  await page.getByLabel("Port in the container").last().fill("80");
  await page.getByRole("dialog").getByRole("button", { name: "Run", exact: true }).click();
  await page.getByRole("region", { name: "ui-web" }).waitFor();
  const answer = await new Promise((resolve, reject) => http.get("http://127.0.0.1:18099/", resolve).on("error", reject));
  assert.equal(answer.statusCode, 200);
  answer.destroy();
  await page.getByRole("tab", { name: "Mounts and ports" }).click();
  await page.getByText("Listening").first().waitFor();
});

real("a container's log is followed, searched, and its stats are drawn", async () => {
  docker("run", "-d", "--name", "ui-shell", "-v", "ui-data:/data", "ui-shell:1");
  await go("/containers/ui-shell/logs");
  await page.locator(".line", { hasText: "plain words" }).waitFor();
  const before = await page.locator(".lines .space").evaluate((e) => e.clientHeight);
  await page.waitForFunction((h) => document.querySelector(".lines .space").clientHeight > h + 20, before);
  await page.getByRole("searchbox", { name: "Search the log" }).fill("plain words");
  await page.getByText("1 of 1", { exact: true }).waitFor();
  await page.getByRole("tab", { name: "Stats" }).click();
  await page.locator("figure canvas").first().waitFor();
});

real("a terminal in it runs what is typed", async () => {
  await go("/containers/ui-shell/terminal");
  await page.getByRole("textbox", { name: "Terminal 1, ui-shell" }).waitFor();
  const screen = page.locator(".xterm-accessibility");
  await screen.filter({ hasText: "#" }).waitFor();
  await page.keyboard.type("echo 6 times 7 is $((6*7)); echo kept > /data/note\n");
  await screen.filter({ hasText: "6 times 7 is 42" }).waitFor();
});

real("its files are there, with what was changed against the image", async () => {
  await go("/containers/ui-shell/files");
  await row("made").getByText("Added").waitFor();
  await row("gone.txt").getByText("Deleted").waitFor();
  await row("data").click();
  await row("note").click();
  await page.getByText("kept", { exact: true }).waitFor();
});

real("stopping it in a terminal shows at once, and its files are read from the archive", async () => {
  docker("stop", "-t", "1", "ui-shell");
  await page.getByRole("button", { name: "Read files" }).click();
  await row("bin").waitFor();
  await row("made").click();
  await page.getByRole("textbox", { name: "Path" }).waitFor();
});

real("a volume is exported, cloned, and imported into", async () => {
  const tar = join(dir, "volume.tar");
  await go("/volumes");
  const menu = async (volume, item) => {
    await page.getByRole("button", { name: `More actions for ${volume}`, exact: true }).click();
    await page.getByRole("menuitem", { name: item, exact: true }).click();
  };
  await menu("ui-data", "Export as tar");
  await answerPath(tar);
  await page.getByText(`Exported to ${tar}`).waitFor();
  assert.match(execFileSync("tar", ["-tf", tar], { encoding: "utf8" }), /note/);
  await menu("ui-data", "Clone");
  await page.getByRole("dialog").getByRole("button", { name: "Clone" }).click();
  await page.getByText("ui-data-copy is made").waitFor();
  writeFileSync(join(dir, "fresh"), "from outside");
  execFileSync("tar", ["-C", dir, "-cf", join(dir, "fresh.tar"), "fresh"]);
  await menu("ui-data-copy", "Import a tar");
  await answerPath(join(dir, "fresh.tar"));
  await page.getByRole("alertdialog").getByRole("button", { name: "Import a tar" }).click();
  await page.getByText("Imported into ui-data-copy").waitFor();
  await go("/volumes/ui-data-copy");
  await row("note").waitFor();
  await row("fresh").click();
  await page.getByText("from outside").waitFor();
});

real("an image is saved to a file, loaded from it again, and has its layers", async () => {
  const tar = join(dir, "image.tar");
  await go("/images");
  await page.getByRole("button", { name: "More actions for ui-shell:1" }).click();
  await page.getByRole("menuitem", { name: "Tag" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("ui-shell:again");
  await page.getByRole("dialog").getByRole("button", { name: "Tag" }).click();
  await page.waitForTimeout(1000);
  await page.getByRole("button", { name: "More actions for ui-shell:1" }).click();
  await page.getByRole("menuitem", { name: "Save to a file" }).click();
  await answerPath(tar);
  await page.getByText(`Saved to ${tar}`).waitFor();
  assert.ok(statSync(tar).size > 500_000);
  quietly("rm", "-f", "ui-shell");
  docker("rmi", "-f", "ui-shell:1", "ui-shell:again");
  await row("ui-shell").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Actions", exact: true }).click();
  await page.getByRole("menuitem", { name: "Load from a file" }).click();
  await answerPath(tar);
  await page.getByText("image.tar is loaded").waitFor();
  await row("ui-shell").click();
  await page.getByRole("table").getByText("Imported from").or(page.getByRole("table").getByRole("cell").first()).first().waitFor();
});

real("a network is made, joined and left", async () => {
  await go("/networks");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("ui-net");
  await page.getByRole("dialog").getByRole("button", { name: "Create" }).click();
  await row("ui-net").click();
  await page.getByRole("combobox", { name: "Container" }).selectOption({ label: "ui-web" });
  await page.getByRole("button", { name: "Connect a container" }).click();
  await page.getByRole("link", { name: "ui-web" }).waitFor();
  await page.getByRole("button", { name: "Disconnect ui-web" }).click();
  await page.getByText("No container is connected").waitFor();
});

real("two containers of a project are stopped as one", async () => {
  for (const service of ["one", "two"]) docker("run", "-d", "--name", `ui-${service}`, "-l", "com.docker.compose.project=ui-project", "-l", `com.docker.compose.service=${service}`, "slipway/welcome");
  await go("/containers");
  await page.getByText("2 of 2 running").waitFor();
  await page.getByRole("button", { name: "Stop ui-project", exact: true }).click();
  await page.getByText("0 of 2 running").waitFor();
  await page.getByRole("button", { name: "Remove ui-project", exact: true }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Remove", exact: true }).click();
  await row("Compose project ui-project").waitFor({ state: "detached" });
});

real("a shell in the machine and the logs of its parts are there", async () => {
  await go("/troubleshoot/shell");
  await page.locator(".xterm-accessibility", { hasText: "slipway:" }).waitFor();
  await page.keyboard.type("echo in the machine $((40+2))\n");
  await page.locator(".xterm-accessibility", { hasText: "in the machine 42" }).waitFor();
  await go("/troubleshoot/logs");
  await page.getByRole("combobox", { name: "Unit" }).selectOption("dockerd");
  await page.locator(".line", { hasText: "API listen" }).or(page.locator(".line").first()).first().waitFor();
});

real("the doctor looks at the real machine, and diagnostics are saved for this user alone", async () => {
  await go("/troubleshoot/checks");
  await page.getByRole("list", { name: "Checks" }).getByText("QEMU").waitFor();
  assert.equal(await page.getByRole("list", { name: "Checks" }).getByText(", failed:").count(), 0);
  await page.getByRole("button", { name: "Save diagnostics…" }).click();
  const file = join(dir, "bundle.tar.gz");
  await answerPath(file);
  await page.getByText(`Diagnostics saved to ${file}`).waitFor();
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const inside = execFileSync("tar", ["-tzf", file], { encoding: "utf8" });
  for (const name of ["manifest.json", "doctor.json", "status.json", "engine/info.json", "logs/dockerd.log"]) assert.ok(inside.includes(`bundle/${name}\n`), `${name} in ${inside}`);
});

real("a setting is kept, refused with its reason, and put back", async () => {
  await go("/settings/advanced");
  const field = page.getByRole("textbox", { name: "Stop timeout" });
  const old = await field.inputValue();
  await field.fill("61");
  await field.press("Enter");
  await page.getByRole("button", { name: "Back to the default: Stop timeout" }).waitFor();
  await field.fill("0");
  await field.press("Enter");
  await page.getByText(/takes a whole number/).waitFor();
  await page.getByRole("button", { name: "Back to the default: Stop timeout" }).click();
  await page.getByRole("button", { name: "Back to the default: Stop timeout" }).waitFor({ state: "detached" });
  assert.equal(await field.inputValue(), old);
});

real("no script of the page failed all the while", () => assert.deepEqual(errors, []));
