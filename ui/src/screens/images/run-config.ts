// The run dialog's fields as what the engine takes. Pure, so that every mistake is tested.
import type { ImageDetail } from "../../engine/types";
import { t } from "../../texts";

export interface PortRow {
  host: string;
  container: string;
  protocol: "tcp" | "udp";
}
export interface VolumeRow {
  source: string;
  target: string;
  readOnly: boolean;
}
export interface Variable {
  name: string;
  value: string;
}
export interface RunForm {
  name: string;
  command: string;
  ports: PortRow[];
  volumes: VolumeRow[];
  environment: Variable[];
  restart: string;
  removeAfter: boolean;
}

export const emptyForm = (): RunForm => ({ name: "", command: "", ports: [], volumes: [], environment: [], restart: "no", removeAfter: false });

/**
 * Puts the image's exposed ports and volumes first, to be filled in. The image may be known late: what the person has written by
 * then stays as it is.
 */
export function offer(form: RunForm, image: ImageDetail): void {
  const ports = Object.keys(image.Config?.ExposedPorts ?? {}).map((port): PortRow => {
    const [container, protocol] = port.split("/");
    return { host: "", container, protocol: protocol === "udp" ? "udp" : "tcp" };
  });
  const volumes = Object.keys(image.Config?.Volumes ?? {}).map((target): VolumeRow => ({ source: "", target, readOnly: false }));
  form.ports.unshift(...ports.filter((port) => !form.ports.some((p) => p.container === port.container && p.protocol === port.protocol)));
  form.volumes.unshift(...volumes.filter((volume) => !form.volumes.some((v) => v.target === volume.target)));
}

/** Words as a shell would cut them: quotes keep spaces, a backslash the next character. */
export function words(line: string): string[] {
  const found: string[] = [];
  let word = "";
  let inWord = false;
  let quote = "";
  for (let i = 0; i < line.length; i++) {
    const c = line[i];
    if (quote) {
      if (c === quote) quote = "";
      else if (c === "\\" && quote === '"' && /["\\$`]/.test(line[i + 1] ?? "")) word += line[++i];
      else word += c;
    } else if (c === "'" || c === '"') {
      quote = c;
      inWord = true;
    } else if (c === "\\" && i + 1 < line.length) {
      word += line[++i];
      inWord = true;
    } else if (/\s/.test(c)) {
      if (inWord) found.push(word);
      word = "";
      inWord = false;
    } else {
      word += c;
      inWord = true;
    }
  }
  if (inWord) found.push(word);
  return found;
}

const isPort = (text: string) => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535;

export function mistakes(form: RunForm): { ports: (string | null)[]; volumes: (string | null)[]; any: boolean } {
  const x = t.images.run;
  const ports = form.ports.map((row) => {
    if (row.host === "") return null;
    return isPort(row.host) && isPort(row.container) ? null : x.badPort;
  });
  const volumes = form.volumes.map((row) => {
    if (row.source === "") return null;
    return row.target.startsWith("/") ? null : x.badTarget;
  });
  return { ports, volumes, any: [...ports, ...volumes].some((m) => m !== null) };
}

/** What `POST /containers/create` takes. Rows that are not filled in are left out. */
export function config(image: string, form: RunForm): object {
  const bindings: Record<string, { HostPort: string }[]> = {};
  for (const { host, container, protocol } of form.ports) {
    if (host !== "") (bindings[`${container}/${protocol}`] ??= []).push({ HostPort: host });
  }
  const command = words(form.command);
  return {
    Image: image,
    Cmd: command.length > 0 ? command : undefined,
    Env: form.environment.filter((v) => v.name !== "").map((v) => `${v.name}=${v.value}`),
    ExposedPorts: Object.fromEntries(Object.keys(bindings).map((port) => [port, {}])),
    HostConfig: {
      PortBindings: bindings,
      Mounts: form.volumes
        .filter((v) => v.source !== "")
        .map((v) => ({ Type: v.source.startsWith("/") ? "bind" : "volume", Source: v.source, Target: v.target, ReadOnly: v.readOnly })),
      RestartPolicy: { Name: form.removeAfter ? "no" : form.restart },
      AutoRemove: form.removeAfter,
    },
  };
}
