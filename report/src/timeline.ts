// Timelines: each probe as a dot over time, below the blockers as bars, several servers on one axis.

import type { Page, Timeline } from "./data";
import { button, choice, h, marks, showChoice, source } from "./dom";
import { amount, csv } from "./format";
import { MOST_DOTS, type Pane, drawn, looks, nearest, paint, timeAt, within } from "./painting";
import { type Requests, type Stall, holder, requestsOf, stalls } from "./stalls";
import type { State } from "./state";
import { type Act, zoom } from "./zoom";

/** Servers that are shown at a time. */
const MOST_PANES = 12;

/** What dots and bars mean. */
const MARKS: [string, string][] = [
  ["dot instant", "answered within 0.1 s"],
  ["dot flow", "within 1 s"],
  ["dot attention", "within 10 s"],
  ["dot lost", "later"],
  ["dot unanswered", "not answered"],
  ["bar done", "slow request"],
  ["bar unanswered", "slow request without an answer"],
  ["bar held", "slow request that held up the dot you point at"],
];

/** The key of a step. */
export const stepOf = (one: { kind: string; k: number }): string => `${one.kind}-${one.k}`;

/** The section; `null` if the round kept no probes. */
export function timelines(page: Page, state: State, command: string): { element: HTMLElement; zoom: (act: Act) => void } | null {
  const all = page.moments.timelines;
  if (all.length === 0) return null;
  const steps = [...new Map(all.map((one) => [stepOf(one), `${one.kind}, k = ${one.k}`]))];
  const read = new Map<Timeline, ReturnType<typeof requestsOf>>();
  const requestsFor = (one: Timeline) => {
    const known = read.get(one) ?? requestsOf(one, page.moments.unit_ms);
    read.set(one, known);
    return known;
  };
  let builds = 0;

  const stack = h("div", { class: "panes" });
  const list = h("ol", { class: "stalls" });
  const tip = h("div", { class: "tip", hidden: true });
  const note = h("p", { class: "count", role: "status" });
  let panes: Pane[] = [];
  let hovered: { pane: Pane; index: number } | null = null;
  let selection: [number, number] | null = null;
  let isAsked = false;

  const whole = (): [number, number] => [0, Math.max(1, ...panes.map((pane) => pane.timeline.end_ms))];
  const span = (): [number, number] => state.view.zoom ?? whole();
  const ask = () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      draw();
    });
  };

  const build = async () => {
    builds += 1;
    const own = builds;
    const { servers, step } = state.view;
    const ofStep = new Map(all.filter((one) => stepOf(one) === step).map((one) => [one.server, one]));
    const chosen = servers.filter((name) => ofStep.has(name));
    const names = chosen.slice(0, MOST_PANES);
    const requests = await Promise.all(names.map((name) => requestsFor(ofStep.get(name) as Timeline)));
    // Somebody has chosen others meanwhile.
    if (own !== builds) return;
    panes = names.map((name, number) => {
      const timeline = ofStep.get(name) as Timeline;
      const lanes = Math.max(1, ...[...requests[number].blockers.connection].map((connection) => connection + 1));
      const canvas = h("canvas", { role: "img", "aria-label": `${name}: each request to / over time beside ${timeline.k} blockers; its stalls are listed below` });
      canvas.addEventListener("pointermove", (event) => hover(event, name));
      canvas.addEventListener("pointerleave", () => {
        hovered = null;
        tip.hidden = true;
        ask();
      });
      canvas.addEventListener("pointerdown", (event) => {
        // Other buttons have a menu to open, and a second finger is no start of anything.
        if (event.button !== 0 || !event.isPrimary) return;
        canvas.setPointerCapture(event.pointerId);
        const time = timeAt(event.offsetX, canvas, span());
        selection = [time, time];
      });
      canvas.addEventListener("pointerup", () => {
        const drawn = selection;
        selection = null;
        if (drawn && Math.abs(drawn[1] - drawn[0]) > (span()[1] - span()[0]) * 0.01) state.set({ zoom: [Math.min(...drawn), Math.max(...drawn)] });
        ask();
      });
      // The browser has taken the finger's movement for itself, to scroll.
      canvas.addEventListener("pointercancel", () => {
        selection = null;
        ask();
      });
      canvas.addEventListener("dblclick", () => state.set({ zoom: null }));
      return { timeline, ...requests[number], ...looks(requests[number].probes), canvas, lanes };
    });
    stack.replaceChildren(...panes.map((pane) => h("div", { class: "pane", "data-server": pane.timeline.server }, h("h3", {}, pane.timeline.server, pane.timeline.invalid ? h("span", { class: "why" }, ` invalid: ${pane.timeline.invalid}`) : null), pane.canvas, table(pane), files(pane))));
    const without = servers.filter((name) => !ofStep.has(name));
    const missing = without.length > 0 ? `; not measured at this step: ${without.join(", ")}` : "";
    const hidden = chosen.length > names.length ? `; ${chosen.length - names.length} more are chosen` : "";
    note.textContent = panes.length === 0 ? `None of the chosen servers has this step${missing}.` : `${panes.length} servers${hidden}${missing}`;
    const worst = panes.flatMap((pane) => stalls(pane.timeline.server, pane.probes, pane.blockers).slice(0, 3)).sort((a, b) => b.worst - a.worst);
    list.replaceChildren(...worst.slice(0, 10).map((stall) => h("li", {}, button(told(stall), () => goTo(stall)))));
    if (worst.length === 0 && panes.length > 0) list.replaceChildren(h("li", {}, "none: no probe took longer than 20 ms"));
    ask();
  };

  const files = (pane: Pane) => source(command, `stalls-${stepOf(pane.timeline)}-${pane.timeline.server}`, { SVG: () => drawn(pane, ...span()), CSV: () => rows(pane) });

  const goTo = (stall: Stall) => {
    state.set({ zoom: [Math.max(0, stall.from - 20), stall.to + 20] });
    stack.querySelector(`[data-server="${CSS.escape(stall.server)}"]`)?.scrollIntoView({ block: "nearest" });
  };

  const draw = (isAll = false) => {
    const [from, to] = span();
    const inSight = panes.reduce((sum, pane) => sum + within(pane.probes.at, from, to).count, 0);
    stack.dataset.mode = inSight > MOST_DOTS ? "heat map" : "dots";
    // Panes out of sight are drawn when they come into view.
    const isInSight = ({ canvas }: Pane) => {
      const { top, bottom } = canvas.getBoundingClientRect();
      return isAll || bottom > -200 && top < innerHeight + 200;
    };
    for (const pane of panes.filter(isInSight)) paint(pane, from, to, inSight > MOST_DOTS, hovered?.pane === pane ? hovered.index : null, selection);
    stack.dataset.frames = String(Number(stack.dataset.frames ?? 0) + 1);
  };

  const hover = (event: PointerEvent, name: string) => {
    const pane = panes.find((one) => one.timeline.server === name);
    if (!pane) return;
    if (selection) {
      selection = [selection[0], timeAt(event.offsetX, pane.canvas, span())];
      ask();
      return;
    }
    const index = nearest(pane, event.offsetX, event.offsetY, span());
    hovered = index === null ? null : { pane, index };
    tip.hidden = index === null;
    if (index !== null) {
      const { at, took, answered } = pane.probes;
      const held = holder(pane.probes, index, pane.blockers);
      const by = held !== null && took[index] > 20 ? `, when the slow request on connection ${pane.blockers.connection[held]} ended` : "";
      tip.textContent = `due at ${amount(at[index], "ms")}, ${answered[index] ? "answered" : "not answered"} after ${amount(took[index], "ms")}${by}`;
      const box = stack.getBoundingClientRect();
      tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 220)}px`;
      tip.style.top = `${event.clientY - box.top + 16}px`;
    }
    ask();
  };

  const move = (act: Act) => zoom(state, act, whole());
  const blockers = choice("blockers", steps, state.view.step, (step) => state.set({ step }));

  state.on(["step"], (view) => showChoice(blockers, view.step));
  state.on(["servers", "step"], () => void build());
  state.on(["zoom", "theme"], ask);
  new ResizeObserver(ask).observe(stack);
  addEventListener("scroll", ask, { passive: true });
  // All of them are printed.
  addEventListener("beforeprint", () => draw(true));
  void build();
  const element = h(
    "div",
    {},
    h(
      "div",
      { class: "controls" },
      blockers,
      button("zoom in", () => move("in"), { title: "w" }),
      button("zoom out", () => move("out"), { title: "s" }),
      button("left", () => move("left"), { title: "a" }),
      button("right", () => move("right"), { title: "d" }),
      button("all of it", () => move("fit"), { title: "f" }),
    ),
    note,
    marks(MARKS),
    h("div", { class: "stage" }, stack, tip),
    h("h3", {}, "The worst stalls"),
    list,
  );
  return { element, zoom: move };
}

function told(stall: Stall): string {
  const held = stall.held ? `, until the slow request sent at ${amount(stall.held[1], "ms")} on connection ${stall.held[0]} ended` : "";
  const end = stall.isAnswered ? held : " without an answer";
  return `${stall.server}: from ${amount(stall.from, "ms")} on, ${stall.count} ${stall.count === 1 ? "probe" : "probes"} waited up to ${amount(stall.worst, "ms")}${end}`;
}

/** The probes by the time at which they were due, as a table. */
function table(pane: Pane): HTMLElement {
  const { timeline, probes } = pane;
  const length = Math.max(50, (timeline.end_ms - timeline.start_ms) / 20);
  const body = h("tbody");
  const row = (from: number) => {
    const { first, count } = within(probes.at, from, from + length);
    const took = [...probes.took.subarray(first, first + count)].sort((a, b) => a - b);
    const without = probes.answered.subarray(first, first + count).filter((is) => is === 0).length;
    const cells = [String(count), took.length > 0 ? amount(took[took.length >> 1], "ms") : "–", took.length > 0 ? amount(took[took.length - 1], "ms") : "–", String(without)];
    return h("tr", {}, h("th", { scope: "row" }, `${amount(from, "ms")} on`), ...cells.map((text) => h("td", { class: "number" }, text)));
  };
  const fill = () => {
    const starts = [];
    for (let from = timeline.start_ms; from < timeline.end_ms; from += length) starts.push(from);
    body.replaceChildren(...starts.map(row));
  };
  const head = ["due from", "probes", "median", "longest", "unanswered"];
  return h(
    "details",
    { ontoggle: fill },
    h("summary", {}, "Show as a table"),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `probes of ${timeline.server}` }, h("table", {}, h("thead", {}, h("tr", {}, ...head.map((word, at) => h("th", { scope: "col", class: at === 0 ? "words" : "number" }, word)))), body)),
  );
}

/** Each request as CSV: first the probes, then the blockers. */
function rows({ timeline, probes, blockers }: Pane): string {
  const of = (kind: string, { at, took, answered }: Requests, connection: (index: number) => string) =>
    [...at.keys()].map((index) => [timeline.server, kind, connection(index), at[index].toFixed(2), took[index].toFixed(2), answered[index] ? "yes" : "no"]);
  return csv([["server", "request", "connection", "due ms", "response ms", "answered"], ...of("probe", probes, () => ""), ...of("blocker", blockers, (index) => String(blockers.connection[index]))]);
}
