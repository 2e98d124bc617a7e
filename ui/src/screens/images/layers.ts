// Progress of a pull or push: one entry a layer, and one number for all of them.
import type { ProgressLine } from "../../engine/types";
import { bytes } from "../../texts/format";

export interface Layer {
  id: string;
  status: string;
  current: number;
  total: number;
  done: boolean;
}

const DONE = /^(Pull complete|Already exists|Pushed|Layer already exists|Mounted from)/;
/** Unpacking counts anew from nothing; a layer that is down has its bytes. */
const DOWN = /^(Verifying Checksum|Download complete|Extracting)/;

export class LayerProgress {
  readonly layers = new Map<string, Layer>();
  /** The last word that was about no layer. */
  message = "";

  add(line: ProgressLine): void {
    if (!line.id || !line.status || line.status.startsWith("Pulling from")) {
      this.message = line.status ?? line.stream?.trim() ?? this.message;
      return;
    }
    const layer = this.layers.get(line.id) ?? { id: line.id, status: "", current: 0, total: 0, done: false };
    layer.status = line.status;
    const detail = line.progressDetail ?? {};
    if (!DOWN.test(line.status) && detail.total) {
      layer.current = detail.current ?? 0;
      layer.total = detail.total;
    } else if (DOWN.test(line.status)) layer.current = layer.total;
    if (DONE.test(line.status)) {
      layer.done = true;
      layer.current = layer.total;
    }
    this.layers.set(line.id, layer);
  }

  /** None while no size is known. */
  get fraction(): number | null {
    const all = [...this.layers.values()];
    const total = all.reduce((sum, l) => sum + l.total, 0);
    if (total === 0) return null;
    return all.reduce((sum, l) => sum + l.current, 0) / total;
  }

  get words(): string {
    const all = [...this.layers.values()];
    const total = all.reduce((sum, l) => sum + l.total, 0);
    if (total === 0) return this.message;
    return `${bytes(all.reduce((sum, l) => sum + l.current, 0))} / ${bytes(total)}`;
  }
}
