// Numbers and times as a person reads them.

const UNITS = ["B", "KB", "MB", "GB", "TB"];

/** Powers of 1000, three figures: as docker and file managers show sizes. */
export function bytes(n: number): string {
  if (n < 0) return "–";
  let unit = 0;
  let value = n;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(value >= 9.995 ? 1 : 2)} ${UNITS[unit]}`;
}

/** Memory goes by powers of 1024. */
export function memory(n: number): string {
  const mib = n / 1048576;
  if (mib >= 1024) return `${(mib / 1024).toFixed(1)} GiB`;
  return `${mib >= 10 ? Math.round(mib) : mib.toFixed(1)} MiB`;
}

export const percent = (n: number): string => `${n >= 9.95 ? Math.round(n) : n.toFixed(1)} %`;

/** How long ago, in the largest unit that is not nothing. What was built to be the same each time says 1970, which is no age. */
export function ago(seconds: number, now = Date.now() / 1000): string {
  if (!(seconds > 0)) return "–";
  const s = Math.max(0, now - seconds);
  if (s < 60) return "just now";
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  const days = Math.floor(s / 86400);
  if (days < 31) return days === 1 ? "yesterday" : `${days} days ago`;
  if (days < 365) return `${Math.floor(days / 30.4)} mo ago`;
  return `${Math.floor(days / 365)} y ago`;
}

export const seconds = (ms: number): string => (ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`);

/** A moment of the engine (RFC 3339) in the person's own time. */
export const moment = (iso: string | number): string =>
  new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const clock = (ms: number): string => {
  const d = new Date(ms);
  const two = (n: number) => String(n).padStart(2, "0");
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
};
