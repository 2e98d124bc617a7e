// One tooltip for the whole page: what an icon means, on hover and on keyboard focus.
import type { Attachment } from "svelte/attachments";

const DELAY = 450;
let shown: HTMLElement | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

function hide(): void {
  clearTimeout(timer);
  shown?.remove();
  shown = null;
}

function show(owner: HTMLElement, text: string): void {
  hide();
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.textContent = text;
  // The owner's label says the same to screen readers.
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const at = owner.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const below = at.bottom + own.height + 8 < innerHeight;
  tip.style.left = `${Math.max(4, Math.min(innerWidth - own.width - 4, at.left + at.width / 2 - own.width / 2))}px`;
  tip.style.top = `${below ? at.bottom + 6 : at.top - own.height - 6}px`;
  shown = tip;
}

export function tip(text: string): Attachment<HTMLElement> {
  return (owner) => {
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(() => show(owner, text), DELAY);
    };
    const focused = () => owner.matches(":focus-visible") && soon();
    owner.addEventListener("pointerenter", soon);
    owner.addEventListener("pointerleave", hide);
    owner.addEventListener("pointerdown", hide);
    owner.addEventListener("focus", focused);
    owner.addEventListener("blur", hide);
    return () => {
      hide();
      owner.removeEventListener("pointerenter", soon);
      owner.removeEventListener("pointerleave", hide);
      owner.removeEventListener("pointerdown", hide);
      owner.removeEventListener("focus", focused);
      owner.removeEventListener("blur", hide);
    };
  };
}
