import { t } from "../texts";
import { act, notes } from "./talk.svelte";

export async function copy(text: string): Promise<void> {
  if (await act(t.copyFailed, () => navigator.clipboard.writeText(text))) notes.done(t.copied, text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
