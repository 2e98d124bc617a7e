// Where the person is. It stands in the address, so the tray can lead there and Back works.

export const SCREENS = ["containers", "images", "volumes", "networks", "builds", "settings", "troubleshoot"] as const;
export type Screen = (typeof SCREENS)[number];

export interface Place {
  screen: Screen;
  /** An object, or a section of the settings. */
  id: string | null;
  tab: string | null;
}

export function parse(hash: string): Place {
  const [screen, id, tab] = hash.replace(/^#\/?/, "").split("/").map(decode);
  const known = SCREENS.find((s) => s === screen);
  return known ? { screen: known, id: id || null, tab: tab || null } : { screen: "containers", id: null, tab: null };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function address({ screen, id, tab }: Place): string {
  return `#/${[screen, id, tab].filter((part): part is string => part !== null).map(encodeURIComponent).join("/")}`;
}

class Route {
  place = $state.raw<Place>(parse(location.hash));

  begin(): void {
    window.addEventListener("hashchange", () => (this.place = parse(location.hash)));
  }

  go(screen: Screen, id: string | null = null, tab: string | null = null): void {
    location.hash = address({ screen, id, tab });
    this.place = { screen, id, tab };
  }
}

export const route = new Route();
