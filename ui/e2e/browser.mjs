// Debian's Chromium on a scripted bridge. One browser for a file of tests, a page of its own for each.
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./bridge.mjs";
import { Scripted } from "./scripted.mjs";

/** The browser's own word about an answer of 400 or more: a test says itself what it expects of those. */
const REFUSED = /^Failed to load resource: the server responded with a status of [45]\d\d/;

export const SHOTS = fileURLToPath(new URL("./shots", import.meta.url));

export async function launch() {
  const executablePath = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"].find(existsSync);
  if (!executablePath) throw new Error("no chromium: apt-get install chromium-headless-shell");
  await mkdir(SHOTS, { recursive: true });
  // Root has no sandbox of its own here; the page is ours.
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"] });
}

/** A page of a scripted engine. `errors` gathers what the page's console and scripts complain of. */
export async function open(browser, { script = {}, hash = "/containers", theme = "light", size = { width: 1200, height: 760 }, met = true, dir = "ltr" } = {}) {
  const target = script instanceof Scripted ? script : new Scripted(script);
  const bridge = await serve(target);
  const context = await browser.newContext({ viewport: size, colorScheme: theme, reducedMotion: "reduce", permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && !REFUSED.test(message.text()) && errors.push(message.text()));
  await page.addInitScript(
    ({ met, dir }) => {
      if (met) localStorage.setItem("slipway.met", "1");
      document.addEventListener("DOMContentLoaded", () => document.documentElement.setAttribute("dir", dir));
    },
    { met, dir },
  );
  await page.goto(`${bridge.url}/#${hash}`);
  return {
    page,
    target,
    errors,
    async close() {
      await context.close();
      await bridge.close();
    },
  };
}
