import Box from "@lucide/svelte/icons/box";
import Database from "@lucide/svelte/icons/database";
import Hammer from "@lucide/svelte/icons/hammer";
import Layers from "@lucide/svelte/icons/layers";
import LifeBuoy from "@lucide/svelte/icons/life-buoy";
import Network from "@lucide/svelte/icons/network";
import Settings from "@lucide/svelte/icons/settings";
import type { Screen } from "../state/route.svelte";

export const icons = {
  containers: Box,
  images: Layers,
  volumes: Database,
  networks: Network,
  builds: Hammer,
  settings: Settings,
  troubleshoot: LifeBuoy,
} satisfies Record<Screen, unknown>;

export const UPPER = ["containers", "images", "volumes", "networks", "builds"] as const;
export const LOWER = ["settings", "troubleshoot"] as const;
