// The state of the view. It stands in the address, so that a view can be sent.

export interface View {
  /** Servers that are drawn in colour, in the order in which they were chosen. */
  servers: string[];
  /** The step that timelines show, such as `sleep-2`. */
  step: string;
  /** The part of the time axis that is shown, in ms; all of it if null. */
  zoom: [number, number] | null;
  /** Filter over names. */
  filter: string;
  /** The group that the table shows; all if empty. */
  group: string;
  /** The column that the table is sorted by, and whether from large to small. */
  sort: [number, boolean] | null;
  /** Wide columns are shown. */
  wide: boolean;
  /** The servers that are set against one another. */
  pair: [string, string] | null;
  /** `light` or `dark`; what the system prefers if empty. */
  theme: string;
}

type Listener = (view: View, changed: (keyof View)[]) => void;

export class State {
  view: View;
  private readonly listeners: Listener[] = [];

  constructor(private readonly initial: View) {
    this.view = { ...initial };
    this.read();
    addEventListener("hashchange", () => {
      if (location.hash !== this.hash()) {
        this.view = { ...this.initial };
        this.read();
        this.tell(Object.keys(this.view) as (keyof View)[]);
      }
    });
  }

  /** Changes something, and tells everybody. */
  set(change: Partial<View>): void {
    const changed = Object.keys(change) as (keyof View)[];
    this.view = { ...this.view, ...change };
    history.replaceState(null, "", this.hash() || location.pathname + location.search);
    this.tell(changed);
  }

  /** Calls back at each change of one of these. */
  on(names: (keyof View)[], listener: (view: View) => void): void {
    this.listeners.push((view, changed) => {
      if (changed.some((name) => names.includes(name))) listener(view);
    });
  }

  private tell(changed: (keyof View)[]): void {
    for (const listener of this.listeners) listener(this.view, changed);
  }

  private hash(): string {
    const parts = new URLSearchParams();
    const { view, initial } = this;
    const put = (name: string, value: string, usual: string) => {
      if (value !== usual) parts.set(name, value);
    };
    put("servers", view.servers.join(","), initial.servers.join(","));
    put("step", view.step, initial.step);
    put("zoom", view.zoom ? view.zoom.map((ms) => ms.toFixed(1)).join("-") : "", "");
    put("filter", view.filter, "");
    put("group", view.group, "");
    put("sort", view.sort ? `${view.sort[0]}${view.sort[1] ? "d" : "a"}` : "", "");
    put("wide", view.wide ? "1" : "", "");
    put("pair", view.pair ? view.pair.join(",") : "", "");
    put("theme", view.theme, "");
    const text = parts.toString();
    return text ? `#${text}` : "";
  }

  private read(): void {
    const parts = new URLSearchParams(location.hash.slice(1));
    const { view } = this;
    view.servers = parts.get("servers")?.split(",").filter(Boolean) ?? view.servers;
    view.step = parts.get("step") ?? view.step;
    const zoom = parts.get("zoom")?.split("-").map(Number);
    if (zoom?.length === 2 && zoom.every(Number.isFinite) && zoom[0] < zoom[1]) view.zoom = [zoom[0], zoom[1]];
    view.filter = parts.get("filter") ?? "";
    view.group = parts.get("group") ?? "";
    const sort = /^(\d+)([ad])$/.exec(parts.get("sort") ?? "");
    view.sort = sort ? [Number(sort[1]), sort[2] === "d"] : null;
    view.wide = parts.get("wide") === "1";
    const pair = parts.get("pair")?.split(",");
    view.pair = pair?.length === 2 ? [pair[0], pair[1]] : null;
    const theme = parts.get("theme") ?? "";
    view.theme = ["light", "dark"].includes(theme) ? theme : "";
  }
}
