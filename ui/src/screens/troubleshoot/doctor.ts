// What the doctor is asked, and how a person reads what it finds.
import { backend, type Check, type DoctorReport } from "../../backend";
import { control } from "../../backend/calls";
import { machine } from "../../state/machine.svelte";
import { notes } from "../../state/talk.svelte";
import { t } from "../../texts";

const x = t.troubleshoot.checks;
const ORDER = ["failed", "warning", "ok", "not-applicable"];

/** The page may be opened at this place, before it knows where it runs. */
const dockerConfig = async (): Promise<string | null> => (machine.platform ?? (await backend.platform())).dockerConfig;

export const doctor = async (fix: string[]): Promise<DoctorReport> => control.post<DoctorReport>("/doctor", { fix, docker_config: await dockerConfig() });

/** What is not well first; else as the doctor looks. */
export const bySeverity = (checks: Check[]): Check[] => [...checks].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));

export const mendable = (check: Check): boolean => check.fixable === true && (check.state === "warning" || check.state === "failed");

/** `slipway-diagnose-20261124T093000Z.tar.gz`, as the command names it. */
export const bundleName = (now: Date): string => `slipway-diagnose-${now.toISOString().replace(/\.\d+/, "").replaceAll(/[-:]/g, "")}.tar.gz`;

export async function saveDiagnostics(): Promise<void> {
  const path = await backend.chooseSaveFile(x.saveTitle, bundleName(new Date()));
  if (!path) return;
  await notes.work(x.saving, x.saved(path), async () => {
    await control.post("/diagnose", { path, docker_config: await dockerConfig() });
  });
}
