// Stopping the machine stops what runs in it, so it is asked first and says how much that is.
import type { Update, Updated } from "../backend";
import { control } from "../backend/calls";
import { isUp, nameOf } from "../engine/containers";
import { engine } from "../state/engine.svelte";
import { machine } from "../state/machine.svelte";
import { asking, notes } from "../state/talk.svelte";
import { t } from "../texts";

async function asked(title: string, action: string): Promise<boolean> {
  const running = engine.containers.items.filter(isUp);
  return asking.ask({ title, body: t.machine.stopBody(running.length), items: running.map(nameOf), action, danger: running.length > 0 });
}

export async function confirmStop(): Promise<void> {
  if (await asked(t.machine.stopTitle, t.machine.stop)) await machine.stop();
}

export async function confirmRestart(): Promise<void> {
  if (await asked(t.machine.restartTitle, t.machine.restart)) await machine.restart();
}

export async function confirmKill(): Promise<void> {
  const yes = await asking.ask({ title: t.troubleshoot.killTitle, body: t.troubleshoot.killBody, action: t.troubleshoot.kill });
  if (yes) await machine.stop(true);
}

/** The daemon does it to its end, and goes back by itself, whoever waits. */
export async function confirmUpdate({ to }: Update): Promise<void> {
  const x = t.settings;
  const runs = machine.status?.machine != null;
  if (runs && !(await asked(x.imageUpdateTitle, x.imageUpdateConfirm))) return;
  machine.updating = true;
  try {
    const request = { dir: to.dir, docker_config: machine.platform?.dockerConfig ?? null };
    notes.done(x.imageUpdated((await control.post<Updated>("/update", request)).to));
  } catch (thrown) {
    notes.failed(x.imageUpdateFailed, thrown);
  }
  machine.updating = false;
}
