import { t } from "../../texts";

/** Why this is no `daemon.json`; none if it is one. An empty text is an empty one. */
export function jsonObjectMistake(text: string): string | null {
  if (text.trim() === "") return null;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? null : t.settings.notAnObject;
  } catch (thrown) {
    return t.settings.badJson(thrown instanceof Error ? thrown.message : String(thrown));
  }
}
