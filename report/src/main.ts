// The report: sections from top to bottom, keys, and the theme.

import "uplot/dist/uPlot.min.css";
import * as compare from "./compare";
import { type Header, type Page, read } from "./data";
import { onSystemTheme, setTheme } from "./colors";
import { button, h } from "./dom";
import { figure, valuesOf } from "./lines";
import { method, receiptOf } from "./method";
import { State, type View } from "./state";
import { plotOf } from "./plot";
import * as tables from "./table";
import { longest } from "./tabs";
import { stepOf, timelines } from "./timeline";
import { waterfalls } from "./waterfall";

const HELP: [string, string][] = [
  ["w, s", "zoom in, zoom out, on every time axis"],
  ["a, d", "left, right"],
  ["f", "all of the time axis"],
  ["?", "this list"],
  ["Escape", "closes it"],
];

/** The ids of all sections that a page may have: an address may name one that this page has not, and leads to its beginning. */
const SECTIONS = ["freezes", "servers", "rounds", "tabs", "stalls", "percentiles", "figures", "compare", "tables", "method"];

function section(id: string, title: string, ...children: (Node | string | null)[]): HTMLElement {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), ...children);
}

function help(): HTMLDialogElement {
  const dialog: HTMLDialogElement = h("dialog", { "aria-labelledby": "help-title" }, h("h2", { id: "help-title" }, "Keys"), h("dl", {}, ...HELP.flatMap(([keys, what]) => [h("dt", {}, keys), h("dd", {}, what)])), button("close", () => dialog.close()));
  return dialog;
}

/** The step that shows most: the smallest number of blockers above the number of threads, or the largest. */
function firstStep(page: Page): string {
  const kinds = page.moments.timelines.filter((one) => one.kind === page.moments.timelines[0].kind && one.k > 0);
  const steps = [...new Set(kinds.map((one) => one.k))].sort((a, b) => a - b);
  const k = steps.find((one) => one > page.header.settings.threads) ?? steps[steps.length - 1];
  return k === undefined ? "" : stepOf({ kind: kinds[0].kind, k });
}

/** What was measured, on what machine, and how. */
function measured(name: string, { started, environment, settings }: Header, found: number): string {
  const planned = `${settings.trials} ${settings.trials === 1 ? "trial" : "trials"}`;
  const trials = found < settings.trials ? `${found} of ${planned} so far` : planned;
  return `${name}, started ${started}: ${environment.processor}, ${environment.cores} cores, Linux ${environment.kernel}; W = ${settings.threads}, ${trials}, placement ${settings.placement}.`;
}

/** What stands below the first sentence. */
function about(page: Page): HTMLElement[] {
  const most = page.figures[0]?.x.ticks.at(-1)?.[1];
  const never = most ? ` Never: not with up to ${most} slow requests, and more were not tried.` : "";
  // Of a user's own service, the verdict says what freezes and at which limit.
  const frozen = page.freezing.length > 0 ? ` Frozen: the 99th percentile of a page that does nothing takes over 0.1 s.${never}` : "";
  const lines = [`Round ${measured(page.name, page.header, page.trials_found)}${frozen}`];
  const isDrawn = page.figures.some((one) => plotOf(one, page).series.some((line) => line.isOther));
  if (page.beside) lines.push(`Beside it${isDrawn ? ", in other dashes" : ""}: round ${measured(page.beside.name, page.beside.header, page.beside.trials_found)}`);
  const others = page.others.map((line) => h("p", { class: "others" }, line));
  return [...others, ...lines.map((line) => h("p", { class: "about" }, line))];
}

function show(page: Page): void {
  document.title = `${page.name} – Stallbench`;
  const initial: View = {
    servers: page.shown,
    step: page.moments.timelines.length > 0 ? firstStep(page) : "",
    zoom: null,
    filter: "",
    group: "",
    runtime: "",
    model: "",
    grade: "",
    sort: null,
    wide: false,
    pair: null,
    theme: "",
    at: "",
    open: [],
  };
  const { waterfalls: tabs, timelines: steps } = page.moments;
  const state = new State(initial, {
    end: Math.max(longest(tabs), ...steps.map((one) => one.end_ms)),
    servers: page.order.map(([name]) => name),
    steps: steps.map(stepOf),
    facets: tables.facets(page),
    columns: page.tables[0]?.columns.length ?? 0,
    sections: SECTIONS,
    folded: [...tables.names(page).map(tables.idOf), ...page.figures.map((one) => valuesOf(one.name)), ...page.header.servers.map(receiptOf)],
  });
  setTheme(state.view.theme);
  state.on(["theme"], (view) => setTheme(view.theme));
  onSystemTheme(() => state.set({ theme: state.view.theme }));

  const made = page.header.command.join(" ");
  const [first, ...rest] = page.figures;
  const isPercentile = (name: string) => name.startsWith("percentiles-");
  const times = timelines(page, state, made);
  const falls = waterfalls(page, state, made);
  const dialog = help();
  const percentiles = rest.filter((one) => isPercentile(one.name));
  const others = rest.filter((one) => !isPercentile(one.name));
  const between = compare.rounds(page);
  const pair = compare.servers(page, state);
  const draw = (one: (typeof page.figures)[number]) => figure(one, page, state, made);

  const parts: [string, string, (Node | string | null)[]][] = [
    ["freezes", page.heading, first ? [draw(first)] : [h("p", {}, "This round has no figure: its tables hold what was measured.")]],
    ["servers", "All servers", page.tables.length > 0 ? [tables.servers(page, state)] : [h("p", {}, "This round has no table of servers.")]],
  ];
  if (between) parts.push(["rounds", `${page.beside?.name} against ${page.name}`, [between]]);
  if (falls) parts.push(["tabs", "Two tabs", [h("p", {}, "Requests sent at the same instant, as the network panel of a browser draws them."), falls.element]]);
  if (times) parts.push(["stalls", "Stalls, request by request", [h("p", {}, "Each dot is a request to /, at the time at which it was due; the higher, the longer its response took. The bars above are slow requests in flight, one row for each connection. Point at a dot to see which slow request held it up; drag to zoom."), times.element]]);
  if (percentiles.length > 0) parts.push(["percentiles", "Percentiles", percentiles.map(draw)]);
  if (others.length > 0) parts.push(["figures", "More figures", others.map(draw)]);
  if (pair) parts.push(["compare", "Compare two servers", [pair]]);
  parts.push(["tables", "All tables", tables.all(page)]);
  parts.push(["method", "How it was measured", [method(page)]]);

  const sections = parts.map(([id, title, children]) => section(id, title, ...children));
  const themes = h("span", { class: "themes" }, button("light", () => state.set({ theme: "light" })), button("dark", () => state.set({ theme: "dark" })), button("system", () => state.set({ theme: "" })), button("keys (?)", () => dialog.showModal()));
  const main = document.getElementById("page");
  main?.replaceChildren(
    h("header", {}, h("div", { class: "top" }, h("p", { class: "brand" }, "Stallbench"), themes), h("h1", {}, page.sentence), ...about(page), h("p", { class: "source" }, h("code", {}, made))),
    h("nav", { "aria-label": "sections" }, h("ul", {}, ...parts.map(([id, title]) => h("li", {}, h("a", { href: `#${id}`, onclick: (event) => jump(event, state, id) }, title))))),
    h("div", { class: "first" }, ...sections.slice(0, 2)),
    ...sections.slice(2),
    dialog,
  );
  addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    // Where letters are typed or choose something, they are not keys of the page; nor are they while a dialog covers it.
    const isTyped = target.matches("input:not([type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyped || dialog.open) return;
    const act = ({ w: "in", s: "out", a: "left", d: "right", f: "fit" } as const)[event.key];
    if (act) (times ?? falls)?.zoom(act);
    else if (event.key === "?") dialog.showModal();
  });
  places(state);
  document.documentElement.dataset.ready = "yes";
}

/** Keeps the section and the opened tables in the address, and goes where the address says. */
function places(state: State): void {
  const folded = [...document.querySelectorAll<HTMLDetailsElement>("details[id]")];
  const show = () => {
    for (const one of folded) one.open = state.view.open.includes(one.id);
    document.getElementById(state.view.at)?.scrollIntoView({ behavior: "instant" });
  };
  for (const one of folded) {
    one.addEventListener("toggle", () => {
      const { open } = state.view;
      if (one.open === open.includes(one.id)) return;
      if (one.open) state.set({ at: one.id, open: [...open, one.id] });
      else state.set({ at: one.closest("section")?.id ?? "", open: open.filter((id) => id !== one.id) });
    });
  }
  // By the address alone: who opens a table sees it already.
  addEventListener("hashchange", show);
  show();
}

/** The address holds the view, so a link inside the page scrolls by itself. */
function jump(event: Event, state: State, id: string): void {
  event.preventDefault();
  const goal = document.getElementById(id);
  goal?.scrollIntoView();
  goal?.querySelector<HTMLElement>("h2")?.setAttribute("tabindex", "-1");
  goal?.querySelector<HTMLElement>("h2")?.focus({ preventScroll: true });
  state.set({ at: id });
}

try {
  show(read());
} catch (error) {
  document.getElementById("page")?.replaceChildren(h("p", { class: "broken", role: "alert" }, `This report cannot be shown: ${error instanceof Error ? error.message : error}`));
  throw error;
}
