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
  /** What the table shows of each facet; all if empty. */
  group: string;
  runtime: string;
  model: string;
  grade: string;
  /** The column that the table is sorted by, and whether from large to small. */
  sort: [number, boolean] | null;
  /** Wide columns are shown. */
  wide: boolean;
  /** The servers that are set against one another. */
  pair: [string, string] | null;
  /** `light` or `dark`; what the system prefers if empty. */
  theme: string;
  /** The section or the table that the page was last sent to; none if empty. */
  at: string;
  /** The tables that are opened. */
  open: string[];
}

/** What servers can be told apart by in the table: each facet has a choice of its own. */
export const FACETS = ["group", "runtime", "model", "grade"] as const;
export type Facet = (typeof FACETS)[number];

/** The smallest part of the time axis that is shown, in tenths of a millisecond, which is what the address holds. */
const LEAST = 5;

/** The part of a time axis that lies within it, as the address holds it; `null` if there is none. An axis over anything else has no end of labels. */
export function within(zoom: [number, number], end: number): [number, number] | null {
  if (!zoom.every(Number.isFinite)) return null;
  const [from, to] = [Math.max(0, Math.round(zoom[0] * 10)), Math.min(Math.ceil(end * 10), Math.round(zoom[1] * 10))];
  return to - from >= LEAST ? [from / 10, to / 10] : null;
}

/** What a page has, so that an address cannot ask for anything else. */
export interface Known {
  /** The end of the longest time axis, in ms. */
  end: number;
  servers: string[];
  steps: string[];
  facets: Record<Facet, string[]>;
  /** The number of columns of the table of servers. */
  columns: number;
  /** The sections, and what can be opened in them. */
  sections: string[];
  folded: string[];
}

type Listener = (view: View, changed: (keyof View)[]) => void;

export class State {
  view: View;
  private readonly listeners: Listener[] = [];

  constructor(private readonly initial: View, private readonly known: Known) {
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
    // Where a part is too small to be shown, the one in sight stays.
    const zoom = change.zoom ? within(change.zoom, this.known.end) ?? this.view.zoom : change.zoom;
    this.view = { ...this.view, ...change, ...(zoom === undefined ? {} : { zoom }) };
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
    for (const facet of FACETS) put(facet, view[facet], "");
    put("sort", view.sort ? `${view.sort[0]}${view.sort[1] ? "d" : "a"}` : "", "");
    put("wide", view.wide ? "1" : "", "");
    put("pair", view.pair ? view.pair.join(",") : "", "");
    put("theme", view.theme, "");
    put("at", view.at, "");
    put("open", view.open.join(","), "");
    const text = parts.toString();
    return text ? `#${text}` : "";
  }

  /** Takes the view from the address; what this page does not have stays as it is at first. */
  private read(): void {
    const parts = new URLSearchParams(location.hash.slice(1));
    const { view, known } = this;
    const one = (name: string, of: string[], usual: string) => {
      const value = parts.get(name) ?? usual;
      return of.includes(value) ? value : usual;
    };
    const servers = parts.get("servers")?.split(",").filter((name) => known.servers.includes(name));
    // None is a choice, but none of those that were named is not.
    view.servers = servers && (servers.length > 0 || parts.get("servers") === "") ? servers : view.servers;
    view.step = one("step", known.steps, view.step);
    const zoom = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/.exec(parts.get("zoom") ?? "");
    view.zoom = zoom ? within([Number(zoom[1]), Number(zoom[2])], known.end) : null;
    view.filter = parts.get("filter") ?? "";
    for (const facet of FACETS) view[facet] = one(facet, known.facets[facet], "");
    const sort = /^(\d+)([ad])$/.exec(parts.get("sort") ?? "");
    view.sort = sort && Number(sort[1]) < known.columns ? [Number(sort[1]), sort[2] === "d"] : null;
    view.wide = parts.get("wide") === "1";
    const pair = parts.get("pair")?.split(",");
    view.pair = pair?.length === 2 && pair.every((name) => known.servers.includes(name)) ? [pair[0], pair[1]] : null;
    view.theme = one("theme", ["light", "dark"], "");
    // A section's name alone is what one would type.
    const typed = location.hash.slice(1);
    view.at = one("at", [...known.sections, ...known.folded], known.sections.includes(typed) ? typed : "");
    view.open = (parts.get("open")?.split(",") ?? []).filter((id) => known.folded.includes(id));
  }
}
