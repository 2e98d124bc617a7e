// Stopping the machine stops what runs in it, so it is asked first and says how much that is.
import { isUp, nameOf } from "../engine/containers";
import { engine } from "../state/engine.svelte";
import { machine } from "../state/machine.svelte";
import { asking } from "../state/talk.svelte";
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
