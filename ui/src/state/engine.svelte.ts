// What the engine has: four lists and the stream of events that keeps them true.
import { jsonLines } from "../backend/calls";
import { containers as api } from "../engine/containers";
import { images as imageApi } from "../engine/images";
import type { Container, EngineEvent, Image, Network, Volume } from "../engine/types";
import { networks as networkApi, volumes as volumeApi } from "../engine/volumes";
import { Live } from "./live.svelte";
import { machine } from "./machine.svelte";
import { following, visible } from "./visible.svelte";

/** Container events that change nothing that a list shows; `exec` alone comes with every health check. */
const QUIET = /^(exec_|exec_create|exec_start|exec_die|attach|detach|resize|top|copy|export|archive-path|extract-to-dir)/;

class Engine {
  containers = new Live<Container>((c) => c.Id, () => api.list(), (ids) => api.list(ids));
  images = new Live<Image>((i) => i.Id, imageApi.list);
  volumes = new Live<Volume>((v) => v.Name, volumeApi.list);
  networks = new Live<Network>((n) => n.Id, networkApi.list);
  /** Counts events of one kind, for screens that have more to ask: an effect that reads it runs again. */
  builds = $state(0);

  #listeners = new Set<(event: EngineEvent) => void>();

  begin(): void {
    $effect.root(() => {
      $effect(() => {
        if (!machine.engineUp) {
          for (const live of this.#lists()) live.clear();
        }
      });
      $effect(() => {
        if (!visible.on || !machine.engineUp) return;
        return following(async (signal, connected) => {
          // The subscription comes first, so nothing that happens while the lists are loaded is missed.
          const events = jsonLines<EngineEvent>("engine", "/events", (event) => (connected(), this.#happened(event)), signal);
          await Promise.race([events, Promise.all(this.#lists().map((live) => live.refresh()))]);
          await events;
        });
      });
    });
  }

  #lists(): { refresh(): Promise<void>; clear(): void }[] {
    return [this.containers, this.images, this.volumes, this.networks];
  }

  /** The listener's own call of what it gets back ends it. */
  listen(listener: (event: EngineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #happened(event: EngineEvent): void {
    switch (event.Type) {
      case "container":
        if (!QUIET.test(event.Action)) this.containers.touch(event.Actor.ID);
        if (event.Action === "destroy" || event.Action === "create") this.volumes.touch();
        break;
      case "image":
        this.images.touch();
        // A container's image has its name no longer.
        if (event.Action === "untag" || event.Action === "tag") this.containers.touch();
        break;
      case "volume":
        if (event.Action === "create" || event.Action === "destroy") this.volumes.touch();
        break;
      case "network":
        this.networks.touch();
        if (event.Action === "connect" || event.Action === "disconnect") {
          const container = event.Actor.Attributes["container"];
          if (container) this.containers.touch(container);
        }
        break;
      case "builder":
        this.builds += 1;
        break;
    }
    for (const listener of this.#listeners) listener(event);
  }
}

export const engine = new Engine();
