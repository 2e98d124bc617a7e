import ArrowUpRight from "@lucide/svelte/icons/arrow-up-right";
import Copy from "@lucide/svelte/icons/copy";
import Pause from "@lucide/svelte/icons/pause";
import Play from "@lucide/svelte/icons/play";
import RotateCw from "@lucide/svelte/icons/rotate-cw";
import ScrollText from "@lucide/svelte/icons/scroll-text";
import Skull from "@lucide/svelte/icons/skull";
import Square from "@lucide/svelte/icons/square";
import SquareTerminal from "@lucide/svelte/icons/square-terminal";
import Trash2 from "@lucide/svelte/icons/trash-2";
import { isUp, publishedPorts } from "../../engine/containers";
import type { Container } from "../../engine/types";
import type { MenuItem } from "../../parts/Menu.svelte";
import { copy } from "../../state/clipboard";
import { route } from "../../state/route.svelte";
import { t } from "../../texts";
import { actOn, copyRun, openUrl, removeAll } from "./acts";

const x = t.containers;

/** Everything that can be done with one container, in the order of how often it is. */
export function containerMenu(c: Container): MenuItem[] {
  const up = isUp(c);
  const items: MenuItem[] = [];
  for (const port of publishedPorts(c)) {
    if (port.url) items.push({ label: x.openPort(port.host), icon: ArrowUpRight, run: () => void openUrl(port.url ?? "") });
  }
  items.push(
    up
      ? { label: x.stop, icon: Square, apart: items.length > 0, run: () => void actOn(c, "stop") }
      : { label: x.start, icon: Play, run: () => void actOn(c, "start") },
  );
  if (up) {
    items.push({ label: x.restart, icon: RotateCw, run: () => void actOn(c, "restart") });
    if (c.State === "paused") items.push({ label: x.unpause, icon: Play, run: () => void actOn(c, "unpause") });
    else items.push({ label: x.pause, icon: Pause, run: () => void actOn(c, "pause") });
    items.push({ label: x.kill, icon: Skull, run: () => void actOn(c, "kill") });
  }
  items.push({ label: x.tabs.logs, icon: ScrollText, apart: true, run: () => route.go("containers", c.Id, "logs") });
  if (up) items.push({ label: x.tabs.terminal, icon: SquareTerminal, run: () => route.go("containers", c.Id, "terminal") });
  items.push(
    { label: x.copyRun, icon: Copy, apart: true, run: () => void copyRun(c.Id) },
    { label: x.copyId, icon: Copy, run: () => void copy(c.Id) },
    { label: x.remove, icon: Trash2, danger: true, apart: true, run: () => void removeAll([c]) },
  );
  return items;
}
