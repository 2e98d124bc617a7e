// What a person does with images, with its questions and its progress.
import { backend } from "../../backend";
import { images, shortId, tagsOf } from "../../engine/images";
import type { Image } from "../../engine/types";
import { engine } from "../../state/engine.svelte";
import { act, asking, notes } from "../../state/talk.svelte";
import { t } from "../../texts";
import { bytes } from "../../texts/format";
import { LayerProgress } from "./layers";

const x = t.images;

export const titleOf = (image: Image): string => tagsOf(image)[0] ?? shortId(image.Id);
const fileName = (path: string): string => path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);

/** How many containers were made from it, running or not. */
export function usersOf(image: Image): string[] {
  return engine.containers.items.filter((c) => c.ImageID === image.Id).map((c) => c.Names?.[0]?.slice(1) ?? c.Id.slice(0, 12));
}

export async function load(): Promise<void> {
  const file = await backend.chooseFile(x.loadTitle, [{ name: "tar", extensions: ["tar", "gz", "tgz", "xz", "zst"] }]);
  if (!file) return;
  const name = fileName(file);
  await notes.work(x.loading(name), x.loaded(name), ({ signal, say }) =>
    images.load(
      file,
      (sent, total) => say(`${bytes(sent)} / ${bytes(total)}`, total > 0 ? sent / total : null),
      (line) => line.stream && say(line.stream.trim(), 1),
      signal,
    ),
  );
}

export async function save(chosen: Image[]): Promise<void> {
  const names = chosen.flatMap((image) => (tagsOf(image).length > 0 ? tagsOf(image) : [image.Id]));
  const first = titleOf(chosen[0]);
  const file = await backend.chooseSaveFile(x.saveTitle, `${first.replaceAll(/[/:]/g, "-")}.tar`);
  if (!file) return;
  // An archive is about as large as its images: the bar is an estimate and is named by the bytes.
  const total = chosen.reduce((sum, image) => sum + image.Size, 0);
  await notes.work(x.saving(first), x.saved(file), ({ signal, say }) => images.save(names, file, (n) => say(bytes(n), Math.min(0.99, n / total)), signal));
}

export async function push(reference: string): Promise<void> {
  await notes.work(x.pushing(reference), x.pushed(reference), async ({ signal, say }) => {
    const layers = new LayerProgress();
    await images.push(reference, (line) => {
      layers.add(line);
      say(layers.words, layers.fraction);
    }, signal);
  });
}

export async function remove(chosen: Image[]): Promise<boolean> {
  const used = chosen.some((image) => usersOf(image).length > 0);
  const yes = await asking.ask({
    title: x.removeTitle(chosen.length),
    body: used ? `${x.removeBody} ${x.removeUsed}` : x.removeBody,
    items: chosen.map((image) => tagsOf(image).join(", ") || shortId(image.Id)),
    action: x.remove,
  });
  if (!yes) return false;
  for (const image of chosen) {
    await act(x.removeFailed(titleOf(image)), async () => {
      const tags = tagsOf(image);
      // By its names one after the other, so that nothing has to be forced; what has no name goes by its id.
      if (tags.length === 0) await images.remove(image.Id, used);
      for (const tag of tags) await images.remove(tag, used);
    });
  }
  return true;
}

/** A name alone; the image goes only with its last one, which is then asked like a removal. */
export const untag = (image: Image, name: string): Promise<boolean> =>
  tagsOf(image).length > 1 ? act(x.removeFailed(name), () => images.remove(name)) : remove([image]);

export async function prune(): Promise<void> {
  const unused = engine.images.items.filter((image) => usersOf(image).length === 0);
  if (unused.length === 0) return notes.done(x.pruneNone);
  const dangling = unused.filter((image) => tagsOf(image).length === 0);
  const yes = await asking.ask({
    title: x.pruneTitle,
    body: x.pruneBody,
    items: dangling.map((image) => shortId(image.Id)),
    action: x.prune,
    option: { label: `${x.pruneAll} (${unused.length - dangling.length})`, on: dangling.length === 0, items: unused.map(titleOf) },
  });
  if (!yes) return;
  const all = asking.option;
  await act(x.prune, async () => notes.done(x.pruned(bytes((await images.prune(all)).SpaceReclaimed))));
}
