// Pictures of every screen in both themes, to be looked at: `node e2e/shots.mjs [FILTER]`.
import { launch, open, SHOTS } from "./browser.mjs";
import { hex } from "./fixtures.mjs";
import { Scripted } from "./scripted.mjs";
import { container } from "./fixtures.mjs";

const api = hex(1);
const failed = { state: "failed", engine: null, machine: null, problem: { code: "data-disk-damaged", message: "the data disk is damaged", causes: ["e2fsck: superblock checksum does not match while trying to open /dev/vdb"], hint: "it is kept as it is; `slipway doctor` can look at it" } };
const scenes = [
  ["containers", {}],
  ["containers-chosen", { do: async (p) => (await p.getByRole("checkbox", { name: /redis-cache/ }).check({ force: true }), p.getByRole("checkbox", { name: /mailpit/ }).check({ force: true })) }],
  ["container-logs", { hash: `/containers/${api}/logs` }],
  ["container-terminal", { hash: `/containers/${api}/terminal`, do: async (p) => (await p.waitForTimeout(400), await p.keyboard.type("ls\n"), p.waitForTimeout(300)) }],
  ["container-stats", { hash: `/containers/${api}/stats` }],
  ["container-files", { hash: `/containers/${api}/files` }],
  ["container-inspect", { hash: `/containers/${api}/inspect` }],
  ["container-mounts", { hash: `/containers/${api}/mounts` }],
  ["container-menu", { do: (p) => p.getByRole("button", { name: "More actions for shop-api-1" }).click() }],
  ["project-logs", { hash: "/containers/project%2Fshop/logs" }],
  ["images", { hash: "/images" }],
  ["image-layers", { hash: `/images/${encodeURIComponent(`sha256:${hex(201)}`)}` }],
  ["image-pull", { hash: "/images", do: async (p) => (await p.getByRole("button", { name: "Pull", exact: true }).click(), await p.getByLabel("Image", { exact: true }).fill("postgres:18"), await p.keyboard.press("Enter"), p.waitForTimeout(900)) }],
  ["image-run", { hash: "/images", do: (p) => p.getByRole("button", { name: /^Run shop\/api:2.4/ }).click() }],
  ["volumes", { hash: "/volumes", do: (p) => p.getByRole("button", { name: "Measure sizes" }).click() }],
  ["volume-files", { hash: "/volumes/shop_pgdata" }],
  ["networks", { hash: "/networks" }],
  ["network-members", { hash: `/networks/${hex(103)}` }],
  ["builds", { hash: "/builds" }],
  ["build-failed", { hash: "/builds/76xnafpgx9u97p0fa8k8klmi7" }],
  ["builds-cache", { hash: "/builds", do: (p) => p.getByRole("button", { name: "Cache" }).click() }],
  ["settings-general", { hash: "/settings" }],
  ["settings-resources", { hash: "/settings/resources", do: (p) => p.getByRole("button", { name: "Give back" }).scrollIntoViewIfNeeded() }],
  ["settings-folders", { hash: "/settings/folders" }],
  ["settings-network", { hash: "/settings/network" }],
  ["settings-advanced", { hash: "/settings/advanced" }],
  ["settings-engine", { hash: "/settings/engine" }],
  ["settings-image", { hash: "/settings/image" }],
  ["troubleshoot", { hash: "/troubleshoot" }],
  ["troubleshoot-checks", { hash: "/troubleshoot/checks" }],
  ["troubleshoot-logs", { hash: "/troubleshoot/logs" }],
  ["troubleshoot-reset", { hash: "/troubleshoot/reset" }],
  ["palette", { do: async (p) => (await p.keyboard.press("Control+k"), p.keyboard.type("shop")) }],
  ["confirm", { do: (p) => p.getByRole("button", { name: "Remove shop", exact: true }).click() }],
  ["first-run", { met: false, status: { state: "stopped", engine: null, machine: null, phases: [], services: [] }, script: { holdings: { data_disk: "/home/anna/.slipway/machine/data.raw", data_bytes: null, settings: [] } } }],
  ["stopped", { status: { state: "stopped", engine: null, machine: null, phases: [] } }],
  ["starting", { status: { state: "starting", engine: null, running_since: null } , booting: true }],
  ["failed", { status: failed }],
  ["degraded", { status: { state: "degraded", problem: { code: "service", message: "containerd was restarted 3 times in a minute", causes: ["exit status 2"], hint: "look at its log in Troubleshoot" } } }],
  ["unreachable", { script: { unreachable: true } }],
  ["engine-error", { script: { engineError: "driver failed: no space left on device" } }],
  ["empty", { script: { containers: [] } }],
  ["long-names", { script: { containers: Array.from({ length: 12 }, (_, i) => container(i + 1, `${"very-long-name-of-a-container-".repeat(4)}${i}`, `registry.example.org:5000/${"team/".repeat(12)}image:${"1".repeat(60)}`, "running", "Up 3 minutes", { ports: [[8080 + i, 80], [9000 + i, 90], [7000 + i, 70]] })) } }],
  ["rtl", { dir: "rtl" }],
  ["rtl-logs", { dir: "rtl", hash: `/containers/${api}/logs` }],
  ["zoom-200", { size: { width: 600, height: 380 } }],
  ["zoom-200-logs", { size: { width: 600, height: 380 }, hash: `/containers/${api}/logs` }],
];

const filter = process.argv[2] ?? "";
const themes = process.argv[3] ? [process.argv[3]] : ["light", "dark"];
const browser = await launch();
for (const [name, scene] of scenes.filter(([name]) => name.includes(filter))) {
  for (const theme of themes) {
    const script = new Scripted(scene.script);
    if (scene.status) script.setStatus(scene.status);
    const { page, target, errors, close } = await open(browser, { ...scene, script, theme });
    if (scene.booting) target.setStatus({ phases: target.phases.slice(0, 6).map((p, i) => (i === 5 ? { ...p, state: "running", ended_ms: null } : p)) });
    await page.waitForTimeout(700);
    try {
      await scene.do?.(page);
    } catch (error) {
      console.log(`${name} ${theme}: ${String(error).split("\n")[0]}`);
    }
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${SHOTS}/${name}-${theme}.png` });
    if (errors.length) console.log(`${name} ${theme}:`, errors.slice(0, 3));
    await close();
  }
}
await browser.close();
