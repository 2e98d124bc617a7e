// What the palette reaches: screens, the machine, and every object with what can be done to it.
import type { Component } from "svelte";
import FileDown from "@lucide/svelte/icons/file-down";
import PackageCheck from "@lucide/svelte/icons/package-check";
import Pause from "@lucide/svelte/icons/pause";
import Play from "@lucide/svelte/icons/play";
import Power from "@lucide/svelte/icons/power";
import RotateCw from "@lucide/svelte/icons/rotate-cw";
import ScrollText from "@lucide/svelte/icons/scroll-text";
import Square from "@lucide/svelte/icons/square";
import SquareTerminal from "@lucide/svelte/icons/square-terminal";
import Stethoscope from "@lucide/svelte/icons/stethoscope";
import SunMoon from "@lucide/svelte/icons/sun-moon";
import { isUp, nameOf } from "../engine/containers";
import { shortId, tagsOf } from "../engine/images";
import { engine } from "../state/engine.svelte";
import { look, THEMES } from "../state/look.svelte";
import { machine } from "../state/machine.svelte";
import { route, SCREENS } from "../state/route.svelte";
import { actOn } from "../screens/containers/acts";
import { saveDiagnostics } from "../screens/troubleshoot/doctor";
import { confirmRestart, confirmStop, confirmUpdate } from "./machine-acts";
import { t } from "../texts";
import { icons } from "./nav";

export interface Entry {
  id: string;
  group: string;
  title: string;
  detail?: string;
  icon: Component<{ size?: number | string }>;
  run: () => void;
}

/** More than a person reads; the words narrow it. */
const SHOWN = 60;

export function entries(): Entry[] {
  return [...screens(), ...machineActs(), ...containers(), ...objects()];
}

function screens(): Entry[] {
  return SCREENS.map((screen) => ({
    id: `screen/${screen}`,
    group: t.palette.screens,
    title: t.nav[screen],
    icon: icons[screen],
    run: () => route.go(screen),
  }));
}

function machineActs(): Entry[] {
  const group = t.palette.actions;
  const state = machine.status?.state;
  const up = state === "running" || state === "degraded";
  const update = machine.status?.update;
  const entry = (id: string, title: string, icon: Entry["icon"], run: () => void): Entry => ({ id, group, title, icon, run });
  return [
    ...(up
      ? [
          entry("machine/restart", t.troubleshoot.restart, RotateCw, () => void confirmRestart()),
          entry("machine/pause", t.troubleshoot.pause, Pause, () => void machine.pause()),
          entry("machine/stop", t.troubleshoot.stop, Power, () => void confirmStop()),
        ]
      : state === "paused"
        ? [
            entry("machine/resume", t.troubleshoot.resume, Play, () => void machine.resume()),
            entry("machine/stop", t.troubleshoot.stop, Power, () => void confirmStop()),
          ]
        : [entry("machine/start", t.machine.startSlipway, Power, () => void machine.start())]),
    ...(update && !update.declined ? [entry("machine/update", t.settings.imageUpdateOpen, PackageCheck, () => void confirmUpdate(update))] : []),
    entry("machine/checks", t.troubleshoot.checks.open, Stethoscope, () => route.go("troubleshoot", "checks")),
    entry("machine/diagnose", t.troubleshoot.checks.save, FileDown, () => void saveDiagnostics()),
    entry("machine/logs", t.machine.showLogs, ScrollText, () => route.go("troubleshoot", "logs")),
    ...THEMES.map((theme) => entry(`theme/${theme}`, `${t.settings.theme}: ${t.settings.themes[theme].toLowerCase()}`, SunMoon, () => look.set(theme))),
  ];
}

function containers(): Entry[] {
  const found: Entry[] = [];
  for (const c of engine.containers.items) {
    const name = nameOf(c);
    const add = (act: string, detail: string, icon: Entry["icon"], run: () => void) =>
      found.push({ id: `container/${c.Id}/${act}`, group: t.palette.containers, title: name, detail, icon, run });
    add("open", c.Image, icons.containers, () => route.go("containers", c.Id));
    add("logs", t.containers.tabs.logs, ScrollText, () => route.go("containers", c.Id, "logs"));
    if (isUp(c)) {
      add("terminal", t.containers.tabs.terminal, SquareTerminal, () => route.go("containers", c.Id, "terminal"));
      add("stop", t.containers.stop, Square, () => void actOn(c, "stop"));
      add("restart", t.containers.restart, RotateCw, () => void actOn(c, "restart"));
    } else add("start", t.containers.start, Play, () => void actOn(c, "start"));
  }
  return found;
}

function objects(): Entry[] {
  const images = engine.images.items.map((image) => ({
    id: `image/${image.Id}`,
    group: t.palette.images,
    title: tagsOf(image)[0] ?? shortId(image.Id),
    icon: icons.images,
    run: () => route.go("images", image.Id),
  }));
  const volumes = engine.volumes.items.map((volume) => ({
    id: `volume/${volume.Name}`,
    group: t.palette.volumes,
    title: volume.Name,
    icon: icons.volumes,
    run: () => route.go("volumes", volume.Name),
  }));
  const networks = engine.networks.items.map((network) => ({
    id: `network/${network.Id}`,
    group: t.palette.networks,
    title: network.Name,
    detail: network.Driver,
    icon: icons.networks,
    run: () => route.go("networks", network.Id),
  }));
  return [...images, ...volumes, ...networks];
}

/** All words must be there; what begins with them comes first. Without words only screens and actions are of use. */
export function rank(all: Entry[], words: string): Entry[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return all.filter((e) => e.group === t.palette.screens || e.group === t.palette.actions);
  const scored: { entry: Entry; score: number }[] = [];
  for (const entry of all) {
    const title = entry.title.toLowerCase();
    const text = `${title} ${(entry.detail ?? "").toLowerCase()} ${entry.group.toLowerCase()}`;
    if (!wanted.every((word) => text.includes(word))) continue;
    scored.push({ entry, score: title.startsWith(wanted[0]) ? 0 : title.includes(wanted[0]) ? 1 : 2 });
  }
  return scored
    .sort((a, b) => a.score - b.score)
    .slice(0, SHOWN)
    .map((s) => s.entry);
}
