// A container as the `docker run` that makes another like it.
import type { ContainerDetail, ImageDetail } from "./types";

/** For a POSIX shell. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

const same = (a: string[] | null | undefined, b: string[] | null | undefined) => JSON.stringify(a ?? []) === JSON.stringify(b ?? []);

/** What the image sets by itself is left out, where the image is known. */
export function dockerRun(c: ContainerDetail, image: ImageDetail | null): string {
  const words = ["docker", "run"];
  const add = (option: string, value?: string) => words.push(option, ...(value === undefined ? [] : [quoted(value)]));
  const { Config: config, HostConfig: host } = c;
  if (config.OpenStdin && config.Tty) add("-it");
  else if (config.Tty) add("-t");
  else if (config.OpenStdin) add("-i");
  add("-d");
  add("--name", c.Name.replace(/^\//, ""));
  if (host.AutoRemove) add("--rm");
  if (host.Privileged) add("--privileged");
  if (host.ReadonlyRootfs) add("--read-only");
  if (host.RestartPolicy.Name && host.RestartPolicy.Name !== "no") {
    const most = host.RestartPolicy.MaximumRetryCount;
    add("--restart", host.RestartPolicy.Name + (most > 0 ? `:${most}` : ""));
  }
  if (!["default", "bridge", ""].includes(host.NetworkMode)) add("--network", host.NetworkMode);
  // The engine's own choice of a name is the id's beginning.
  if (config.Hostname && !c.Id.startsWith(config.Hostname)) add("--hostname", config.Hostname);
  for (const [port, bindings] of Object.entries(host.PortBindings ?? {})) {
    const inside = port.endsWith("/tcp") ? port.slice(0, -4) : port;
    for (const { HostIp, HostPort } of bindings ?? []) {
      const address = HostIp && HostIp !== "0.0.0.0" && HostIp !== "::" ? `${HostIp.includes(":") ? `[${HostIp}]` : HostIp}:` : "";
      add("-p", `${address}${HostPort ? `${HostPort}:` : address ? ":" : ""}${inside}`);
    }
  }
  for (const bind of host.Binds ?? []) add("-v", bind);
  for (const mount of host.Mounts ?? []) {
    add("--mount", `type=${mount.Type}${mount.Source ? `,source=${mount.Source}` : ""},target=${mount.Target}${mount.ReadOnly ? ",readonly" : ""}`);
  }
  const given = new Set(image?.Config?.Env ?? []);
  for (const variable of config.Env ?? []) if (!given.has(variable)) add("-e", variable);
  if (config.User && config.User !== image?.Config?.User) add("-u", config.User);
  if (config.WorkingDir && config.WorkingDir !== (image?.Config?.WorkingDir ?? "")) add("-w", config.WorkingDir);
  for (const cap of host.CapAdd ?? []) add("--cap-add", cap);
  for (const cap of host.CapDrop ?? []) add("--cap-drop", cap);
  for (const extra of host.ExtraHosts ?? []) add("--add-host", extra);
  if (host.Memory > 0) add("--memory", String(host.Memory));
  if (host.NanoCpus > 0) add("--cpus", String(host.NanoCpus / 1e9));
  const ownEntrypoint = !same(config.Entrypoint, image?.Config?.Entrypoint);
  const entrypoint = config.Entrypoint ?? [];
  if (ownEntrypoint && entrypoint.length > 0) add("--entrypoint", entrypoint[0]);
  words.push(quoted(config.Image));
  const before = ownEntrypoint ? entrypoint.slice(1) : [];
  const command = ownEntrypoint || !same(config.Cmd, image?.Config?.Cmd) ? (config.Cmd ?? []) : [];
  for (const word of [...before, ...command]) words.push(quoted(word));
  return words.join(" ");
}
