// The theme: the system's unless the person says otherwise. It is the page's own affair, so it is kept in the page.

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const KEY = "slipway.theme";

const kept = (): Theme => THEMES.find((t) => t === localStorage.getItem(KEY)) ?? "system";

class Look {
  theme = $state<Theme>(kept());
  #systemDark = $state(matchMedia("(prefers-color-scheme: dark)").matches);

  constructor() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => (this.#systemDark = e.matches));
    // Another tab of the same browser changed it.
    addEventListener("storage", (event) => {
      if (event.key !== KEY) return;
      this.theme = kept();
      this.#apply();
    });
    this.#apply();
  }

  /** For what cannot read CSS: terminals and charts. */
  get dark(): boolean {
    return this.theme === "dark" || (this.theme === "system" && this.#systemDark);
  }

  set(theme: Theme): void {
    this.theme = theme;
    localStorage.setItem(KEY, theme);
    this.#apply();
  }

  #apply(): void {
    if (this.theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }
}

export const look = new Look();
