// What a person does with volumes. Their contents travel through a container that is made and never started: the engine's
// archive reads and writes the volumes of such a one, whatever their driver, and no program of an image is needed.
import { backend } from "../../backend";
import { engine as api, query, segment } from "../../backend/calls";
import { containers } from "../../engine/containers";
import { runInMachine } from "../../engine/exec";
import { images, tagsOf } from "../../engine/images";
import type { Volume } from "../../engine/types";
import { volumes } from "../../engine/volumes";
import { engine } from "../../state/engine.svelte";
import { act, asking, notes, type Work } from "../../state/talk.svelte";
import { t } from "../../texts";
import { bytes } from "../../texts/format";

const x = t.volumes;
const MOUNTED = "/volume";

/** Names of the containers that have it mounted, running or not. */
export function usersOf(volume: Volume): string[] {
  return engine.containers.items.filter((c) => c.Mounts?.some((m) => m.Type === "volume" && m.Name === volume.Name)).map((c) => c.Names?.[0]?.slice(1) ?? c.Id.slice(0, 12));
}

async function throughContainer<T>(volume: string, work: (id: string) => Promise<T>): Promise<T> {
  const all = await images.list();
  const image = all.find((i) => tagsOf(i).some((tag) => tag.startsWith("slipway/welcome"))) ?? all.sort((a, b) => a.Size - b.Size)[0];
  if (!image) throw new Error(x.noImage);
  const config = {
    Image: image.Id,
    Cmd: ["true"],
    Labels: { "slipway.volume-archive": volume },
    HostConfig: { Mounts: [{ Type: "volume", Source: volume, Target: MOUNTED, VolumeOptions: { NoCopy: true } }], NetworkMode: "none" },
  };
  const { Id } = await api.post<{ Id: string }>("/containers/create", {}, config);
  try {
    return await work(Id);
  } finally {
    await containers.remove(Id);
  }
}

export async function exportVolume(volume: Volume): Promise<void> {
  const file = await backend.chooseSaveFile(x.exportTitle, `${volume.Name}.tar`);
  if (!file) return;
  await notes.work(x.exporting(volume.Name), x.exported(file), ({ signal, say }: Work) =>
    throughContainer(volume.Name, (id) => backend.download(`/containers/${segment(id)}/archive${query({ path: `${MOUNTED}/.` })}`, file, (n) => say(bytes(n)), signal)),
  );
}

export async function importVolume(volume: Volume): Promise<void> {
  const file = await backend.chooseFile(x.importTitle, [{ name: "tar", extensions: ["tar", "gz", "tgz", "xz", "bz2", "zst"] }]);
  if (!file) return;
  const yes = await asking.ask({ title: x.importAsk, body: x.importBody, items: [volume.Name], action: x.import });
  if (!yes) return;
  await notes.work(x.importing(volume.Name), x.imported(volume.Name), ({ signal, say }) =>
    throughContainer(volume.Name, (id) =>
      backend.upload(
        "PUT",
        `/containers/${segment(id)}/archive${query({ path: MOUNTED })}`,
        file,
        (sent, total) => say(`${bytes(sent)} / ${bytes(total)}`, total > 0 ? sent / total : null),
        () => {},
        signal,
      ),
    ),
  );
}

export const canClone = (volume: Volume): boolean => volume.Driver === "local" && Object.keys(volume.Options ?? {}).length === 0;

export async function clone(volume: Volume, name: string): Promise<void> {
  await notes.work(x.cloning(volume.Name), x.cloned(name), async () => {
    const copy = await volumes.create(name, volume.Labels ?? {});
    try {
      await runInMachine(["/bin/sh", "-c", 'cp -a -- "$1/." "$2/"', "sh", volume.Mountpoint, copy.Mountpoint]);
    } catch (thrown) {
      // Half a copy is worse than none.
      await volumes.remove(copy.Name);
      throw thrown;
    }
  });
}

export async function remove(all: Volume[]): Promise<boolean> {
  const yes = await asking.ask({ title: x.removeTitle(all.length), body: x.removeBody, items: all.map((v) => v.Name), action: x.remove });
  if (!yes) return false;
  for (const volume of all) await act(x.removeFailed(volume.Name), () => volumes.remove(volume.Name));
  return true;
}

export async function prune(): Promise<void> {
  const unused = engine.volumes.items.filter((v) => usersOf(v).length === 0);
  if (unused.length === 0) return notes.done(x.pruneNone);
  const yes = await asking.ask({ title: x.pruneTitle, body: x.pruneBody, items: unused.map((v) => v.Name), action: x.prune });
  if (yes) await act(x.prune, async () => notes.done(x.pruned(bytes((await volumes.prune(true)).SpaceReclaimed))));
}
