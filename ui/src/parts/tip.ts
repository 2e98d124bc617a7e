// One tooltip for the whole page: what an icon means, on hover and on keyboard focus. Owners say it in `data-tip`; two listeners
// hear of all of them, so that a row of a long list costs nothing for it.

const DELAY = 450;
let shown: HTMLElement | null = null;
let owner: HTMLElement | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

function hide(): void {
  clearTimeout(timer);
  shown?.remove();
  shown = owner = null;
}

function show(of: HTMLElement): void {
  if (!of.isConnected) return;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.textContent = of.dataset.tip ?? "";
  // The owner's label says the same to screen readers.
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const at = of.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const below = at.bottom + own.height + 8 < innerHeight;
  tip.style.left = `${Math.max(4, Math.min(innerWidth - own.width - 4, at.left + at.width / 2 - own.width / 2))}px`;
  tip.style.top = `${below ? at.bottom + 6 : at.top - own.height - 6}px`;
  shown = tip;
}

function met(event: Event): void {
  const found = (event.target as Element | null)?.closest?.<HTMLElement>("[data-tip]") ?? null;
  if (found === owner) return;
  hide();
  if (!found || (event.type === "focusin" && !found.matches(":focus-visible"))) return;
  owner = found;
  timer = setTimeout(() => show(found), DELAY);
}

export function beginTips(): void {
  document.addEventListener("pointerover", met);
  document.addEventListener("focusin", met);
  for (const over of ["pointerdown", "focusout", "scroll", "keydown"]) document.addEventListener(over, hide, { capture: true, passive: true });
}
