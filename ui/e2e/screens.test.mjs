// The page in Debian's Chromium on a scripted engine: what people with a keyboard alone, with a screen reader, with hostile
// images and with very many containers meet. Needs `npm run build` first.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";
import { container, hex } from "./fixtures.mjs";
import { Scripted } from "./scripted.mjs";

const axe = await readFile(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const api = hex(1);
let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

/** Opens a page, runs the test on it, and fails for anything that the page's console complained of. */
function onPage(name, options, run) {
  test(name, { timeout: 300_000 }, async () => {
    const opened = await open(browser, options);
    try {
      await run(opened);
      assert.deepEqual(opened.errors, []);
    } finally {
      await opened.close();
    }
  });
}

const row = (page, name) => page.getByRole("row", { name: new RegExp(`^${name}`) });

onPage("a container is stopped and started from its row, and the row follows the engine's events", {}, async ({ page, target }) => {
  await page.getByRole("button", { name: "Stop slipway-welcome" }).click();
  await row(page, "slipway-welcome, Stopped").waitFor();
  assert.equal(target.acts.at(-1).path, `/containers/${hex(7)}/stop`);
  await page.getByRole("button", { name: "Start slipway-welcome" }).click();
  await row(page, "slipway-welcome, Up").waitFor();
  // What somebody does in a terminal shows too.
  target.containers = target.containers.filter((c) => c.Names[0] !== "/mailpit");
  target.event("container", "destroy", hex(9));
  await row(page, "mailpit").waitFor({ state: "detached" });
});

onPage("a project is stopped as one, and removing it says what is lost", {}, async ({ page, target }) => {
  await page.getByRole("button", { name: "Stop shop", exact: true }).click();
  await page.getByText("0 of 4 running").waitFor();
  await page.getByRole("button", { name: "Remove shop", exact: true }).click();
  const dialog = page.getByRole("alertdialog");
  assert.deepEqual(await dialog.getByRole("listitem").allTextContents(), ["shop-api-1", "shop-db-1", "shop-web-1", "shop-worker-1"]);
  await dialog.getByRole("button", { name: "Cancel" }).click();
  assert.equal(target.containers.length, 11);
  await page.getByRole("button", { name: "Remove shop", exact: true }).click();
  await dialog.getByRole("button", { name: "Remove", exact: true }).click();
  await row(page, "Compose project shop").waitFor({ state: "detached" });
  assert.equal(target.containers.length, 7);
});

onPage("several are chosen with the keyboard and pruned with their list", {}, async ({ page }) => {
  await row(page, "dns").focus();
  await page.keyboard.press("Space");
  await page.keyboard.press("Shift+ArrowDown");
  await page.getByRole("toolbar", { name: "Actions for what is selected" }).getByText("2 selected").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Actions", exact: true }).click();
  await page.getByRole("menuitem", { name: "Remove stopped" }).click();
  assert.deepEqual(await page.getByRole("alertdialog").getByRole("listitem").allTextContents(), ["docs-site-1", "docs-search-1", "migrate-2026-11"]);
  await page.getByRole("button", { name: "Remove stopped" }).click();
  await page.getByText("3 containers removed").waitFor();
});

onPage("a log is followed, searched by an expression and keeps its colours", { hash: `/containers/${api}/logs` }, async ({ page }) => {
  const log = page.getByRole("log");
  await log.locator(".ansi-red", { hasText: "error" }).waitFor();
  await page.getByRole("button", { name: "Regular expression" }).click();
  await page.getByRole("searchbox", { name: "Search the log" }).fill("pay.ent");
  await page.getByText("2 of 2").waitFor();
  assert.equal(await log.locator("mark").count(), 2);
  await page.getByRole("searchbox", { name: "Search the log" }).fill("(");
  await page.getByText("Not a regular expression").waitFor();
});

onPage("a terminal takes what is typed and shows what comes back", { hash: `/containers/${api}/terminal` }, async ({ page }) => {
  await page.getByRole("textbox", { name: "Terminal 1, shop-api-1" }).waitFor();
  await page.locator(".xterm-accessibility", { hasText: "root@shop-api" }).waitFor();
  await page.keyboard.type("ls\n");
  await page.locator(".xterm-accessibility", { hasText: "index.html" }).waitFor();
  await page.keyboard.type("exit\n");
  await page.getByText("exit 0").waitFor();
  await page.getByRole("button", { name: "Open again" }).click();
  await page.locator(".xterm-accessibility", { hasText: "root@shop-api" }).waitFor();
});

onPage("what is typed before the shell is there reaches it, in order", {}, async ({ page, target }) => {
  await row(page, "slipway-welcome").waitFor();
  target.execLate = 1500;
  await page.evaluate((hash) => (location.hash = hash), `/containers/${api}/terminal`);
  // It has a size with the first byte that comes.
  await page.getByLabel("Terminal 1, shop-api-1").waitFor({ state: "attached" });
  await page.keyboard.type("ls\n");
  await page.locator(".xterm-accessibility", { hasText: "index.html" }).waitFor();
});

onPage("files are walked with marks for what changed, and a file is shown", { hash: `/containers/${api}/files` }, async ({ page }) => {
  await page.getByRole("row", { name: "etc" }).click();
  await page.getByText("Deleted").waitFor();
  assert.equal(await page.getByRole("row", { name: "app.conf" }).getByText("Added").count(), 1);
  await page.getByRole("row", { name: "app.conf" }).click();
  await page.getByText("listen = 0.0.0.0:80").waitFor();
});

onPage("an image is pulled with its layers and a failed pull says why", { hash: "/images", script: { pullSteps: 12 } }, async ({ page }) => {
  await page.getByRole("button", { name: "Pull", exact: true }).click();
  const field = page.getByLabel("Image", { exact: true });
  await field.fill("missing:1");
  await field.press("Enter");
  await page.getByText("manifest for missing:1 not found").waitFor();
  await field.fill("postgres:18");
  await field.press("Enter");
  await page.getByRole("list", { name: "Layers" }).getByText("6e771e15690e").waitFor();
  await page.getByRole("row", { name: "postgres:18" }).waitFor();
});

onPage("an image is run with a port and a volume", { hash: "/images" }, async ({ page, target }) => {
  await page.getByRole("button", { name: "Run shop/api:2.4" }).click();
  await page.getByLabel("Port on this computer").fill("8088");
  await page.getByLabel("Volume or folder of this computer").fill("shop_uploads");
  await page.getByLabel("Name", { exact: true }).fill("trial");
  await page.getByRole("dialog").getByRole("button", { name: "Run", exact: true }).click();
  await page.getByRole("region", { name: "trial" }).waitFor();
  const { body } = target.acts.find((a) => a.path.startsWith("/containers/create"));
  assert.deepEqual(body.HostConfig.PortBindings, { "80/tcp": [{ HostPort: "8088" }] });
  assert.deepEqual(body.HostConfig.Mounts, [{ Type: "volume", Source: "shop_uploads", Target: "/data", ReadOnly: false }]);
});

onPage("what is written before the image is known stays, and what it exposes is offered beside it", { hash: "/images", script: { inspectLate: 1500 } }, async ({ page, target }) => {
  await page.getByRole("button", { name: "Run shop/api:2.4" }).click();
  await page.getByLabel("Name", { exact: true }).fill("early");
  await page.getByRole("button", { name: "Add a port" }).click();
  await page.getByLabel("Port on this computer").fill("9000");
  await page.getByLabel("Port in the container").fill("9001");
  await page.getByLabel("Port in the container").nth(1).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Run", exact: true }).click();
  await page.getByRole("region", { name: "early" }).waitFor();
  const { body } = target.acts.find((a) => a.path.startsWith("/containers/create"));
  assert.deepEqual(body.HostConfig.PortBindings, { "9001/tcp": [{ HostPort: "9000" }] });
});

onPage("an image is loaded from a file with progress, and can be cancelled", { hash: "/images", script: { transferSteps: 60 } }, async ({ page, target }) => {
  const load = async () => {
    await page.getByRole("button", { name: "Actions", exact: true }).click();
    await page.getByRole("menuitem", { name: "Load from a file" }).click();
    await page.getByLabel("Path on this computer").fill("/home/anna/shop.tar");
    await page.getByRole("button", { name: "Choose", exact: true }).click();
  };
  await load();
  await page.getByRole("progressbar", { name: "Loading shop.tar" }).waitFor();
  await page.getByRole("region", { name: "Notifications" }).getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("progressbar").waitFor({ state: "detached" });
  target.transferSteps = 5;
  await load();
  await page.getByText("shop.tar is loaded").waitFor();
});

onPage("the data disk is shown from both sides, and free space is given back", { hash: "/settings/resources" }, async ({ page, target }) => {
  const images = page.getByRole("row", { name: "Images 14 3.10 GB 1.20 GB" });
  await images.waitFor();
  await page.getByText("6.40 GB of 107 GB").waitFor();
  await page.getByRole("button", { name: "Give back free space" }).click();
  await page.getByText("2.20 GB given back").waitFor();
  await page.getByText("4.20 GB of 107 GB").waitFor();
  // Without a machine nobody knows what is free.
  Object.assign(target.disk, { guest_bytes: null, guest_free_bytes: null, holdings: [] });
  target.setStatus({ state: "stopped", engine: null, machine: null });
  await images.waitFor({ state: "detached" });
  assert.ok(await page.getByRole("button", { name: "Give back free space" }).isDisabled());
});

onPage("the machine goes back to the image before, once it is stopped", { hash: "/settings/image" }, async ({ page, target }) => {
  const [now, before] = [target.images_kept.current.version, target.images_kept.previous.version];
  const back = page.getByRole("button", { name: "Go back to it" });
  await page.getByText(before).waitFor();
  await back.click();
  await page.getByText("the image of a machine that runs cannot be replaced").waitFor();
  target.setStatus({ state: "stopped", engine: null, machine: null });
  await back.click();
  await page.getByText(`${before} is used from the next start on`).waitFor();
  await page.getByText(now).waitFor();
});

onPage("an update that is ready is offered, says what it stops, and tells when it was gone back from", { hash: "/settings/image" }, async ({ page, target }) => {
  const offered = (version) => target.setStatus({ update: { from: target.status.image, to: { version, dir: "/usr/share/slipway/image" }, declined: false } });
  const button = page.getByRole("button", { name: "Update", exact: true });
  await page.getByText("In use", { exact: true }).waitFor();
  assert.equal(await button.count(), 0);
  target.updateFails = true;
  offered("0.3.0-bad");
  await button.click();
  const dialog = page.getByRole("alertdialog");
  await dialog.getByText("containers run and will be stopped").waitFor();
  await dialog.getByRole("button", { name: "Update and restart" }).click();
  await page.getByText("guest image 0.3.0-bad was not taken").waitFor();
  await page.getByText("so no start takes it by itself").waitFor();
  target.updateFails = false;
  offered("0.3.1-good");
  await page.keyboard.press("Control+k");
  await page.keyboard.type("Update the guest");
  await page.getByRole("option", { name: "Update the guest image" }).waitFor();
  await page.keyboard.press("Enter");
  await dialog.getByRole("button", { name: "Update and restart" }).click();
  await page.getByText("Guest image 0.3.1-good is in use").waitFor();
  await button.waitFor({ state: "detached" });
});

onPage("a setting is changed at once, a wrong one says why, and a restart is offered", { hash: "/settings/resources" }, async ({ page, target }) => {
  const memory = page.getByRole("textbox", { name: "Memory" });
  await memory.fill("8GiB");
  await memory.press("Enter");
  await page.getByText("One setting takes effect at the next start").waitFor();
  assert.equal(target.settings.find((s) => s.name === "machine.memory").value, "8GiB");
  await memory.fill("4 apples");
  await memory.press("Enter");
  await page.getByText("not `4 apples`").waitFor();
});

for (const [state, words, changes] of [
  ["stopped", "The machine is stopped", { state: "stopped", engine: null, machine: null }],
  ["starting", "Guest image verified", { state: "starting", engine: null }],
  ["failed", "the data disk is damaged", { state: "failed", engine: null, problem: { code: "x", message: "the data disk is damaged", hint: "it is kept" } }],
  ["paused", "The machine is paused", { state: "paused" }],
  ["degraded", "containerd was restarted", { state: "degraded", problem: { code: "x", message: "containerd was restarted 3 times" } }],
]) {
  onPage(`a machine that becomes ${state} while the window is open shows it, and comes back`, {}, async ({ page, target }) => {
    await row(page, "slipway-welcome").waitFor();
    target.setStatus(changes);
    await page.getByText(words).first().waitFor();
    target.setStatus({ state: "running", engine: "28.5.2", problem: undefined, machine: { cpus: 4, memory_mib: 4096, pid: 1, vmm: "qemu", accel: "kvm", transport: "vsock" } });
    await row(page, "slipway-welcome").waitFor();
  });
}

onPage("the machine is paused from the palette, and goes on from any screen", {}, async ({ page }) => {
  await row(page, "slipway-welcome").waitFor();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("Pause machine");
  await page.getByRole("option", { name: "Pause machine" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "The machine is paused" }).waitFor();
  await page.getByRole("button", { name: "Resume", exact: true }).click();
  await row(page, "slipway-welcome").waitFor();
});

onPage("every screen is reached and worked by keyboard alone", {}, async ({ page }) => {
  await row(page, "Compose project docs").waitFor();
  for (const screen of ["Containers", "Images", "Volumes", "Networks", "Builds", "Settings", "Troubleshoot"]) {
    await page.keyboard.press("Control+k");
    await page.keyboard.type(screen);
    await page.getByRole("option", { name: screen }).first().waitFor();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: screen }).waitFor();
    // On the screen that is there already nothing else is waited for.
    await page.getByRole("dialog").waitFor({ state: "detached" });
    // All that Tab comes to has a name and shows that it has the focus.
    const seen = new Set();
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const e = document.activeElement;
        if (!e || e === document.body) return null;
        const name = e.getAttribute("aria-label") ?? e.textContent?.trim() ?? e.getAttribute("title") ?? "";
        const labelled = name || e.getAttribute("aria-labelledby") || e.closest("label");
        const style = getComputedStyle(e);
        return { key: `${e.tagName} ${name}`, named: Boolean(labelled), ring: style.outlineStyle !== "none" || e.closest(".xterm") !== null };
      });
      // Before the first stop the palette may just be giving the focus back; after the last it leaves the page.
      if (!at && seen.size === 0) continue;
      if (!at) break;
      assert.ok(at.named, `${screen}: something without a name has the focus: ${at.key}`);
      assert.ok(at.ring, `${screen}: no ring around ${at.key}`);
      if (seen.has(at.key) && seen.size > 5) break;
      seen.add(at.key);
    }
    assert.ok(seen.size >= 9, `${screen}: only ${seen.size} stops: ${[...seen].join(", ")}`);
  }
  // Into a container, through its tabs and out again.
  await page.keyboard.press("Control+k");
  await page.keyboard.type("slipway-welcome");
  await page.keyboard.press("Enter");
  await page.getByRole("region", { name: "slipway-welcome" }).waitFor();
  await page.getByRole("tab", { name: "Logs" }).focus();
  for (const tab of ["Terminal", "Stats", "Files", "Inspect", "Mounts and ports"]) {
    await page.getByRole("tab", { selected: true }).focus();
    await page.keyboard.press("ArrowRight");
    await page.getByRole("tab", { name: tab, selected: true }).waitFor();
  }
  await page.keyboard.press("Escape");
  await page.getByRole("region", { name: "slipway-welcome" }).waitFor({ state: "detached" });
});

const PLACES = ["/containers", "/images", "/volumes", "/networks", "/builds", "/settings", "/settings/resources", "/settings/folders", "/settings/network", "/settings/engine", "/settings/image", "/settings/advanced", "/troubleshoot", "/troubleshoot/checks", "/troubleshoot/logs", "/troubleshoot/shell", "/troubleshoot/reset", ...["logs", "terminal", "stats", "files", "inspect", "mounts"].map((tab) => `/containers/${api}/${tab}`), `/images/${encodeURIComponent(`sha256:${hex(201)}`)}`, "/volumes/shop_pgdata", `/networks/${hex(103)}`];
async function violations(page) {
  await page.addScriptTag({ content: axe }).catch(() => page.evaluate(axe));
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" | ")}`);
}
for (const theme of ["light", "dark"]) {
  onPage(`axe finds nothing on any screen in ${theme}`, { theme }, async ({ page, errors }) => {
    const all = [];
    for (const place of PLACES) {
      await page.evaluate((hash) => (location.hash = hash), place);
      await page.waitForTimeout(500);
      for (const v of await violations(page)) all.push(`${place}: ${v}`);
    }
    // And with what opens over a screen.
    await page.evaluate(() => (location.hash = "/containers"));
    await page.getByRole("button", { name: "Remove shop", exact: true }).click();
    for (const v of await violations(page)) all.push(`confirmation: ${v}`);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Control+k");
    await page.waitForTimeout(200);
    for (const v of await violations(page)) all.push(`palette: ${v}`);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "More actions for dns" }).click();
    for (const v of await violations(page)) all.push(`menu: ${v}`);
    await page.keyboard.press("Escape");
    await page.evaluate(() => (location.hash = "/images"));
    await page.getByRole("button", { name: "Run shop/api:2.4" }).click();
    for (const v of await violations(page)) all.push(`run dialog: ${v}`);
    assert.deepEqual(all, []);
    // The policy keeps axe's own script tag out, and says so.
    errors.splice(0, errors.length, ...errors.filter((e) => !e.includes("Content Security Policy")));
  });
}

const EVIL = ["<img src=x onerror=window.hacked=1>", "<script>window.hacked=1</script>", '"><svg onload=window.hacked=1>', "{@html '<b>x</b>'}", "javascript:window.hacked=1", "${window.hacked=1}", "\u202egnp.exe", "&lt;b&gt;", "\x1b]8;;javascript:window.hacked=1\x07x\x1b]8;;\x07", "'-window.hacked=1-'"];
onPage("300 hostile names and labels are text", {
  script: {
    containers: Array.from({ length: 100 }, (_, i) => ({ ...container(i + 1, `${EVIL[i % 10]}${i}`, EVIL[(i + 3) % 10], "running", `Up ${EVIL[(i + 1) % 10]}`, {}), Labels: { "com.docker.compose.project": EVIL[i % 7], "com.docker.compose.service": EVIL[(i + 5) % 10], [EVIL[2]]: EVIL[1] } })),
    images: Array.from({ length: 100 }, (_, i) => ({ Id: `sha256:${hex(i + 1)}`, RepoTags: [`${EVIL[i % 10]}${i}:${EVIL[1]}`], RepoDigests: [EVIL[0]], Created: 1, Size: 1, SharedSize: 0, Containers: 0, Labels: { [EVIL[0]]: EVIL[1] } })),
    volumes: Array.from({ length: 100 }, (_, i) => ({ Name: `${EVIL[i % 10]}${i}`, Driver: EVIL[0], Mountpoint: EVIL[1], Labels: { [EVIL[2]]: EVIL[1] }, Options: null, Scope: "local" })),
    log: EVIL.map((text) => [1, text]),
    files: EVIL.map((name) => ({ name, mode: "81a4", size: 1, mtime: 1 })),
  },
}, async ({ page }) => {
  for (const place of ["/containers", "/images", "/volumes", `/containers/${hex(1)}/logs`, `/containers/${hex(1)}/files`, `/containers/${hex(1)}/inspect`, `/images/${encodeURIComponent(`sha256:${hex(1)}`)}/info`, `/volumes/${encodeURIComponent(`${EVIL[0]}0`)}/info`]) {
    await page.evaluate((hash) => (location.hash = hash), place);
    await page.waitForTimeout(300);
    await page.evaluate(() => {
      for (const e of document.querySelectorAll(".rows, .scroll, .lines")) e.scrollTop = e.scrollHeight / 2;
    });
    await page.waitForTimeout(150);
    assert.equal(await page.evaluate(() => document.querySelectorAll("img, main script, svg[onload], [onerror]").length), 0, place);
    assert.equal(await page.evaluate(() => window.hacked), undefined, place);
  }
  await page.evaluate(() => (location.hash = "/volumes"));
  await page.getByRole("row", { name: EVIL[0] }).first().waitFor();
});

onPage("what the doctor finds stands by its weight, and is mended from its line", { hash: "/troubleshoot/checks" }, async ({ page, target }) => {
  const list = page.getByRole("list", { name: "Checks" });
  await page.getByText("2 things want a look").waitFor();
  const lines = await list.getByRole("listitem").allTextContents();
  assert.match(lines[0], /docker context, failed: the docker context slipway leads elsewhere/);
  assert.match(lines[1], /Hardware acceleration, warning:.*this user may not open \/dev\/kvm.*sudo usermod -aG kvm/s);
  assert.equal(lines.length, 5);
  // Only what can be mended has a button, and it says whose it is.
  assert.equal(await list.getByRole("button").count(), 1);
  await list.getByRole("button", { name: "Fix: docker context" }).click();
  await page.getByText("docker context: mended").waitFor();
  await page.getByText("1 thing wants a look").waitFor();
  assert.equal(await list.getByRole("button").count(), 0);
  assert.deepEqual(target.acts.filter((a) => a.path === "/v1/doctor").map((a) => a.body), [
    { fix: [], docker_config: "/home/anna/.docker" },
    { fix: ["docker-context"], docker_config: "/home/anna/.docker" },
  ]);
  target.unreachable = true;
  await page.getByRole("button", { name: "Check again" }).click();
  await page.getByText("In a terminal, slipway doctor can").waitFor();
});

onPage("diagnostics are saved where the person says, and onto no file that is there", { hash: "/troubleshoot/checks", script: { taken: "/home/anna/mine.tar.gz" } }, async ({ page, target }) => {
  const save = async (path) => {
    await page.getByRole("button", { name: "Save diagnostics…" }).click();
    const field = page.getByLabel("Path on this computer");
    assert.match(await field.inputValue(), /^slipway-diagnose-\d{8}T\d{6}Z\.tar\.gz$/);
    await field.fill(path);
    await page.getByRole("button", { name: "Choose", exact: true }).click();
  };
  await save("/home/anna/mine.tar.gz");
  await page.getByText("is there already").waitFor();
  await save("/home/anna/bundle.tar.gz");
  await page.getByText("Diagnostics saved to /home/anna/bundle.tar.gz").waitFor();
  assert.deepEqual(target.acts.at(-1).body, { path: "/home/anna/bundle.tar.gz", docker_config: "/home/anna/.docker" });
});

onPage("a volume is cloned under another name, exported and removed with a word about what is lost", { hash: "/volumes" }, async ({ page, target }) => {
  const menu = async (item) => {
    await page.getByRole("button", { name: "More actions for redis-data", exact: true }).click();
    await page.getByRole("menuitem", { name: item }).click();
  };
  await menu("Clone");
  await page.getByRole("dialog").getByRole("button", { name: "Clone" }).click();
  await page.getByText("redis-data-copy is made").waitFor();
  assert.equal(target.acts.find((a) => a.path === "/volumes/create").body.Name, "redis-data-copy");
  await menu("Export as tar");
  await page.getByLabel("Path on this computer").fill("/home/anna/redis.tar");
  await page.getByRole("button", { name: "Choose", exact: true }).click();
  await page.getByText("Exported to /home/anna/redis.tar").waitFor();
  // The container that the archive went through is gone again.
  assert.equal(target.containers.length, 11);
  await menu("Remove");
  assert.deepEqual(await page.getByRole("alertdialog").getByRole("listitem").allTextContents(), ["redis-data"]);
  await page.getByRole("alertdialog").getByRole("button", { name: "Remove" }).click();
  await page.getByRole("row", { name: "redis-data", exact: true }).waitFor({ state: "detached" });
});

onPage("a failed build shows its error at its line, and what the failed step said", { hash: "/builds" }, async ({ page }) => {
  await page.getByRole("row", { name: "shop/api, Failed" }).click();
  await page.getByRole("alert").getByText(">>> RUN npm run build").waitFor();
  await page.getByText("error TS2345").waitFor();
  assert.equal(await page.getByRole("region", { name: "Steps" }).getByText("Cached").count(), 3);
});

onPage("a build is done again, shown as it goes, cancelled, and refused with its reason", { hash: "/builds", script: { rebuildSteps: 600 } }, async ({ page, target }) => {
  const [, id] = target.builds[0].ref.match(/([^/]+)$/);
  const dialog = page.getByRole("dialog");
  const again = async (tag) => {
    await page.evaluate((hash) => (location.hash = hash), `/builds/${id}`);
    await page.getByRole("button", { name: "Build again" }).click();
    await dialog.getByLabel("Name of the image").fill(tag);
    await dialog.getByRole("button", { name: "Start the build" }).click();
  };
  await again("shop/api:again");
  assert.deepEqual(target.acts.at(-1).body, { reference: id, tag: "shop/api:again" });
  // The step that runs is open, with its last words.
  await page.getByText("made 3").waitFor();
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.getByRole("status").getByText("The build was cancelled").waitFor();
  // It goes on when nobody looks.
  target.rebuildSteps = 20;
  await again("");
  assert.equal(target.acts.at(-1).body.tag, null);
  await page.getByRole("button", { name: "Close details" }).click();
  await page.getByRole("row").filter({ hasText: "done again" }).waitFor();
  target.rebuildError = "process \"make\" did not complete successfully: exit code: 2";
  await again("");
  await page.getByRole("alert").getByText("exit code: 2").waitFor();
  target.rebuildRefused = "its context was piped into docker, and nobody kept it";
  await again("");
  await page.getByRole("alert").getByText("its context was piped into docker").waitFor();
});

/** Frames that came late while a list was scrolled from end to end: more than two of the display's own. */
async function scroll(page, selector) {
  return page.evaluate(async (selector) => {
    const list = document.querySelector(selector);
    const times = [];
    const steps = 180;
    for (let i = 0; i <= steps; i++) {
      list.scrollTop = (list.scrollHeight * i) / steps;
      times.push(await new Promise((frame) => requestAnimationFrame(frame)));
    }
    const gaps = times.slice(1).map((t, i) => t - times[i]);
    return { frames: gaps.length, late: gaps.filter((g) => g > 34).length, rows: list.querySelectorAll("[role=row], .line").length, height: list.scrollHeight };
  }, selector);
}

const many = Array.from({ length: 1000 }, (_, i) => ({ ...container(1, `container-${String(i).padStart(4, "0")}`, "nginx:1", "running", "Up 3 minutes", { ports: [[10000 + i, 80]] }), Id: i.toString(16).padStart(64, "0") }));
onPage("1,000 containers scroll, and only what is in sight is in the page", { script: { containers: many, statsAtOnce: 2 } }, async ({ page, target }) => {
  await row(page, "container-0000").waitFor();
  const seen = await scroll(page, ".rows");
  console.log(`1,000 containers: ${seen.late} of ${seen.frames} frames late, ${seen.rows} rows in the page`);
  assert.ok(seen.rows < 60, `${seen.rows} rows`);
  assert.ok(seen.height > 50_000);
  assert.ok(target.streams < 40, `${target.streams} streams`);
  await page.getByRole("searchbox", { name: "Filter containers" }).fill("0777");
  await row(page, "container-0777").waitFor();
});

onPage("100,000 log lines scroll and are searched", { hash: `/containers/${api}/logs`, script: { log: Array.from({ length: 100_000 }, (_, i) => [1 + (i % 9 === 0), `\x1b[32m${i}\x1b[0m line of a log that is neither short nor long ${i % 1000 === 0 ? "needle" : ""}`]) } }, async ({ page }) => {
  await page.locator(".line", { hasText: "99999" }).waitFor({ timeout: 60_000 });
  const seen = await scroll(page, ".lines");
  console.log(`100,000 lines: ${seen.late} of ${seen.frames} frames late, ${seen.rows} lines in the page`);
  assert.ok(seen.rows < 120, `${seen.rows} lines`);
  assert.ok(seen.height >= 2_000_000, String(seen.height));
  const began = Date.now();
  await page.getByRole("searchbox", { name: "Search the log" }).fill("needle");
  await page.getByText("100 of 100").waitFor();
  console.log(`searched in ${Date.now() - began} ms`);
});

onPage("a window that is hidden streams nothing, and catches up when it is seen again", {}, async ({ page, target }) => {
  await row(page, "slipway-welcome").waitFor();
  await page.waitForTimeout(1200);
  assert.ok(target.streams > 3);
  const see = (state) =>
    page.evaluate((state) => {
      Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
  await see("hidden");
  await page.waitForTimeout(500);
  assert.equal(target.streams, 0);
  target.containers = target.containers.slice(0, 3);
  await see("visible");
  await row(page, "slipway-welcome").waitFor({ state: "detached" });
});

test("the daemon is started when it does not run", async () => {
  const script = new Scripted({ unreachable: true });
  const { page, close } = await open(browser, { script });
  await page.getByText("Slipway does not answer").first().waitFor();
  await page.getByRole("button", { name: "Start Slipway" }).click();
  await row(page, "slipway-welcome").waitFor();
  await close();
});
