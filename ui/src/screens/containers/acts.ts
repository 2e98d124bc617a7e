// What a person does with containers, with its questions and its answers.
import { asError, backend } from "../../backend";
import { containers, isUp, nameOf, type Action } from "../../engine/containers";
import { dockerRun } from "../../engine/docker-run";
import { images } from "../../engine/images";
import type { Container } from "../../engine/types";
import { copy } from "../../state/clipboard";
import { engine } from "../../state/engine.svelte";
import { act, asking, notes } from "../../state/talk.svelte";
import { t } from "../../texts";
import { bytes } from "../../texts/format";

const x = t.containers;

export const actOn = (c: Container, action: Action): Promise<boolean> => act(x.failed[action](nameOf(c)), () => containers.act(c.Id, action));

/** Several at once, for the ones that it makes sense for; a failure of one stops no other. */
export async function actOnAll(all: Container[], action: Action): Promise<void> {
  const fits = all.filter((c) => (action === "start" ? !isUp(c) : action === "unpause" ? c.State === "paused" : isUp(c)));
  await inTurns(fits, (c) => actOn(c, action));
}

/** At most eight at a time: the engine is not to be drowned. */
async function inTurns<T>(all: T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const rest = [...all];
  const worker = async () => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(8, rest.length) }, worker));
}

export async function removeAll(all: Container[]): Promise<boolean> {
  const yes = await asking.ask({
    title: x.removeTitle(all.length),
    body: x.removeBody,
    items: all.map(nameOf),
    action: x.remove,
    option: { label: x.withVolumes, on: false },
  });
  if (!yes) return false;
  const volumes = asking.option;
  await inTurns(all, (c) => act(x.failed.remove(nameOf(c)), () => containers.remove(c.Id, volumes)));
  return true;
}

export async function prune(): Promise<void> {
  const stopped = engine.containers.items.filter((c) => ["created", "exited", "dead"].includes(c.State));
  if (stopped.length === 0) return notes.done(x.pruneNone);
  const yes = await asking.ask({ title: x.pruneTitle, body: x.pruneBody, items: stopped.map(nameOf), action: x.prune });
  if (!yes) return;
  await act(x.prune, async () => {
    const done = await containers.prune();
    notes.done(x.pruned(done.ContainersDeleted?.length ?? 0, bytes(done.SpaceReclaimed)));
  });
}

export async function copyRun(id: string): Promise<void> {
  await act(t.copyFailed, async () => {
    const detail = await containers.inspect(id);
    // The image may be gone; then all of the container's own settings are written out.
    const image = await images.inspect(detail.Image).catch(() => null);
    await copy(dockerRun(detail, image));
  });
}

export const openUrl = (url: string): Promise<boolean> => act(x.openUrl(url), () => backend.openExternal(url));

const WELCOME = "slipway-welcome";

/** Runs the welcome container, or finds the one that is there, and opens its page. */
export async function runWelcome(): Promise<boolean> {
  return act(t.images.run.failed(WELCOME), async () => {
    const config = {
      Image: "slipway/welcome",
      ExposedPorts: { "80/tcp": {} },
      HostConfig: { PortBindings: { "80/tcp": [{ HostPort: "8080" }] } },
    };
    try {
      await containers.run(WELCOME, config);
    } catch (thrown) {
      // Already made once: start that one. Starting what runs is no error.
      if (asError(thrown).message.includes("is already in use by container")) await containers.act(WELCOME, "start");
      else throw thrown;
    }
    await backend.openExternal("http://localhost:8080");
  });
}
