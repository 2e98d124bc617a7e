// One container's log for a log view: what it said, then what it says, across its restarts.
import { asError, isAbort } from "../../backend";
import { containers } from "../../engine/containers";
import { splitTime } from "../../engine/logs";
import type { Fresh } from "../../parts/LogView.svelte";

/** Lines that are asked for at first: what the view can hold. */
const TAIL = 100_000;

/**
 * Follows until the returned function is called. `running` is asked when the stream ends: an ended container says nothing more
 * until it is started, and then the caller follows anew with `after`, the time of the last line.
 */
export function followLogs(
  id: string,
  name: string,
  tty: boolean | null,
  after: { time: string },
  onLines: (lines: Fresh[]) => void,
  onState: (said: string) => void,
  ended: string,
): () => void {
  const stop = new AbortController();
  const since = after.time || undefined;
  let waiting: Fresh[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = () => {
    timer = undefined;
    onLines(waiting);
    waiting = [];
  };
  onState("");
  containers
    .logs(id, tty, since ? "all" : TAIL, since ? nextNanosecond(since) : undefined, true, (source, line) => {
      const { time, text } = splitTime(line);
      if (time) after.time = time;
      waiting.push({ time, from: name, text, stderr: source === "stderr" });
      timer ??= setTimeout(flush, 16);
    }, stop.signal)
    .then(
      () => onState(ended),
      (thrown: unknown) => !isAbort(thrown) && onState(asError(thrown).message),
    );
  return () => {
    stop.abort();
    if (timer === undefined) return;
    // `after` counts these as shown already: who follows on would not get them again.
    clearTimeout(timer);
    flush();
  };
}

/** `since` takes lines of that very moment too; the last one is already shown. */
export function nextNanosecond(time: string): string {
  const found = /^(.*?)(?:\.(\d+))?Z$/.exec(time);
  if (!found) return time;
  const seconds = Date.parse(`${found[1]}Z`) / 1000;
  const nanos = Number((found[2] ?? "").padEnd(9, "0")) + 1;
  return nanos >= 1e9 ? `${seconds + 1}.000000000` : `${seconds}.${String(nanos).padStart(9, "0")}`;
}
