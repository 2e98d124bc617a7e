// What a setting takes, from the control API's words about it: the daemon alone knows and checks; this only picks the control.
import type { Setting } from "../../backend";

export type Kind =
  | { is: "switch" }
  | { is: "choice"; words: string[] }
  | { is: "number"; from: number; to: number }
  | { is: "text" };

export function kindOf(setting: Setting): Kind {
  const words = [...setting.expected.matchAll(/`([^`]+)`/g)].map((m) => m[1]);
  const number = /from (\d+) to (\d+)/.exec(setting.expected);
  if (number) return { is: "number", from: Number(number[1]), to: Number(number[2]) };
  if (words.length === 2 && words.includes("true") && words.includes("false")) return { is: "switch" };
  // Words and nothing else: "`auto`, or an address such as `http://proxy:3128`" takes more than these two.
  if (/^`[^`]+`( or `[^`]+`)+$/.test(setting.expected)) return { is: "choice", words };
  return { is: "text" };
}

export const SECTIONS = ["general", "resources", "folders", "network", "engine", "image", "advanced"] as const;
export type Section = (typeof SECTIONS)[number];

const TABLES: Record<string, Section> = { machine: "resources", shares: "folders", network: "network", proxy: "network", engine: "engine", docker: "general", image: "image" };
const ADVANCED = ["machine.accel"];

/** A setting that this page has never heard of is under Advanced: nothing that can be set is out of reach. */
export function sectionOf(name: string): Section {
  if (ADVANCED.includes(name)) return "advanced";
  return TABLES[name.split(".")[0]] ?? "advanced";
}

/** Settings with an editor of their own. */
export const ENGINE_FILE = "engine.config";
