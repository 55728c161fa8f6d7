// Timelines: each probe as a dot over time, below the blockers as bars, several servers on one axis.

import type { Page, Timeline } from "./data";
import { button, choice, download, h } from "./dom";
import { amount } from "./format";
import { prepare } from "./canvas";
import { grade, ink } from "./colors";
import { type Requests, type Stall, holder, requestsOf, stalls } from "./stalls";
import type { State } from "./state";

const [LEFT, RIGHT, DOTS, LANE, GAP] = [64, 12, 130, 5, 6];
/** Servers that are shown at a time. */
const MOST_PANES = 8;
/** More dots than this in sight are drawn as a heat map. */
const MOST_DOTS = 20_000;
/** The range of response times, in ms. */
const [LOW, HIGH] = [0.03, 3000];

interface Pane {
  timeline: Timeline;
  probes: Requests;
  blockers: Requests;
  /** How high each probe stands, and the grade of its response time: 4 for one without an answer. */
  height: Float32Array;
  grades: Uint8Array;
  canvas: HTMLCanvasElement;
  lanes: number;
}

const GRADES = ["instant", "flow", "attention", "lost"] as const;

/** Height and grade of each probe, which do not depend on the zoom. */
function looks({ took, answered }: Requests): { height: Float32Array; grades: Uint8Array } {
  const height = Float32Array.from(took, (ms) => up(ms) * DOTS);
  const grades = Uint8Array.from(took, (ms, index) => (answered[index] ? GRADES.indexOf(grade(ms)) : GRADES.length));
  return { height, grades };
}

/** The key of a step. */
export const stepOf = (one: { kind: string; k: number }): string => `${one.kind}-${one.k}`;

/** The section; `null` if the round kept no probes. */
export function timelines(page: Page, state: State): { element: HTMLElement; zoom: (act: "in" | "out" | "left" | "right" | "fit") => void } | null {
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
        canvas.setPointerCapture(event.pointerId);
        selection = [timeAt(event.offsetX, canvas), timeAt(event.offsetX, canvas)];
      });
      canvas.addEventListener("pointerup", () => {
        const drawn = selection;
        selection = null;
        if (drawn && Math.abs(drawn[1] - drawn[0]) > (span()[1] - span()[0]) * 0.01) state.set({ zoom: [Math.min(...drawn), Math.max(...drawn)] });
        ask();
      });
      canvas.addEventListener("dblclick", () => state.set({ zoom: null }));
      return { timeline, ...requests[number], ...looks(requests[number].probes), canvas, lanes };
    });
    stack.replaceChildren(...panes.map((pane) => h("div", { class: "pane", "data-server": pane.timeline.server }, h("h3", {}, pane.timeline.server, pane.timeline.invalid ? h("span", { class: "why" }, ` invalid: ${pane.timeline.invalid}`) : null), pane.canvas, table(pane))));
    const without = servers.filter((name) => !ofStep.has(name));
    const missing = without.length > 0 ? `; not measured at this step: ${without.join(", ")}` : "";
    const hidden = chosen.length > names.length ? `; ${chosen.length - names.length} more are chosen` : "";
    note.textContent = panes.length === 0 ? `None of the chosen servers has this step${missing}.` : `${panes.length} servers${hidden}${missing}`;
    const worst = panes.flatMap((pane) => stalls(pane.timeline.server, pane.probes, pane.blockers).slice(0, 3)).sort((a, b) => b.worst - a.worst);
    list.replaceChildren(...worst.slice(0, 10).map((stall) => h("li", {}, button(told(stall), () => goTo(stall)))));
    if (worst.length === 0 && panes.length > 0) list.replaceChildren(h("li", {}, "none: no probe took longer than 20 ms"));
    ask();
  };

  const goTo = (stall: Stall) => {
    state.set({ zoom: [Math.max(0, stall.from - 20), stall.to + 20] });
    stack.querySelector(`[data-server="${CSS.escape(stall.server)}"]`)?.scrollIntoView({ block: "nearest" });
  };

  const timeAt = (x: number, canvas: HTMLCanvasElement): number => {
    const [from, to] = span();
    return from + ((x - LEFT) / (canvas.clientWidth - LEFT - RIGHT)) * (to - from);
  };

  const draw = () => {
    const [from, to] = span();
    const inSight = panes.reduce((sum, pane) => sum + within(pane.probes.at, from, to).count, 0);
    stack.dataset.mode = inSight > MOST_DOTS ? "heat map" : "dots";
    // Panes out of sight are drawn when they come into view.
    const isInSight = ({ canvas }: Pane) => {
      const { top, bottom } = canvas.getBoundingClientRect();
      return bottom > -200 && top < innerHeight + 200;
    };
    for (const pane of panes.filter(isInSight)) paint(pane, from, to, inSight > MOST_DOTS, hovered?.pane === pane ? hovered.index : null, selection);
    stack.dataset.frames = String(Number(stack.dataset.frames ?? 0) + 1);
  };

  const hover = (event: PointerEvent, name: string) => {
    const pane = panes.find((one) => one.timeline.server === name);
    if (!pane) return;
    if (selection) {
      selection = [selection[0], timeAt(event.offsetX, pane.canvas)];
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

  const zoom = (act: "in" | "out" | "left" | "right" | "fit") => {
    const [from, to] = span();
    const width = to - from;
    const [first, last] = whole();
    if (act === "fit") return state.set({ zoom: null });
    let next: [number, number] = act === "in" ? [from + width / 4, to - width / 4] : act === "out" ? [from - width / 2, to + width / 2] : act === "left" ? [from - width / 4, to - width / 4] : [from + width / 4, to + width / 4];
    const size = Math.min(next[1] - next[0], last - first);
    const start = Math.min(Math.max(first, next[0]), last - size);
    next = [start, start + size];
    state.set({ zoom: size >= last - first ? null : next });
  };

  state.on(["servers", "step"], () => void build());
  state.on(["zoom", "theme"], ask);
  new ResizeObserver(ask).observe(stack);
  addEventListener("scroll", ask, { passive: true });
  void build();
  const save = () => download(`stalls-${state.view.step}.csv`, csv(panes), "text/csv");
  const element = h(
    "div",
    {},
    h(
      "div",
      { class: "controls" },
      choice("blockers", steps, state.view.step, (step) => state.set({ step })),
      button("zoom in", () => zoom("in"), { title: "w" }),
      button("zoom out", () => zoom("out"), { title: "s" }),
      button("left", () => zoom("left"), { title: "a" }),
      button("right", () => zoom("right"), { title: "d" }),
      button("all of it", () => zoom("fit"), { title: "f" }),
      button("CSV", save),
    ),
    note,
    h("div", { class: "stage" }, stack, tip),
    h("h3", {}, "The worst stalls"),
    list,
  );
  return { element, zoom };
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

function csv(panes: Pane[]): string {
  const rows = panes.flatMap((pane) => [...pane.probes.at.keys()].map((index) => `${pane.timeline.server},${pane.probes.at[index].toFixed(2)},${pane.probes.took[index].toFixed(2)},${pane.probes.answered[index] ? "yes" : "no"}\n`));
  return `server,due ms,response ms,answered\n${rows.join("")}`;
}

/** The first probe at or after an instant, and how many there are before another. */
export function within(at: Float64Array, from: number, to: number): { first: number; count: number } {
  const find = (time: number) => {
    let [low, high] = [0, at.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (at[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const first = find(from);
  return { first, count: find(to) - first };
}

const up = (took: number): number => 1 - Math.min(1, Math.max(0, Math.log(Math.max(took, LOW) / LOW) / Math.log(HIGH / LOW)));

function nearest(pane: Pane, x: number, y: number, [from, to]: [number, number]): number | null {
  const { at, took } = pane.probes;
  const width = pane.canvas.clientWidth - LEFT - RIGHT;
  const scale = width / (to - from);
  const time = from + (x - LEFT) / scale;
  const { first, count } = within(at, time - 10 / scale, time + 10 / scale);
  let best: number | null = null;
  let least = 12 ** 2;
  for (let index = first; index < first + count; index += 1) {
    const distance = ((at[index] - time) * scale) ** 2 + (top(pane) + up(took[index]) * DOTS - y) ** 2;
    if (distance < least) {
      least = distance;
      best = index;
    }
  }
  return best;
}

const top = (pane: Pane): number => pane.lanes * LANE + GAP;

function paint(pane: Pane, from: number, to: number, isHeat: boolean, hovered: number | null, selection: [number, number] | null): void {
  const { canvas, blockers, probes: own } = pane;
  const height = top(pane) + DOTS + 22;
  const ready = prepare(canvas, height);
  if (!ready) return;
  const { ctx, width } = ready;
  const across = (time: number) => LEFT + ((time - from) / (to - from)) * (width - LEFT - RIGHT);
  axes(ctx, pane, width, across, from, to);
  ctx.save();
  ctx.beginPath();
  ctx.rect(LEFT, 0, width - LEFT - RIGHT, height);
  ctx.clip();
  const held = hovered === null ? null : holder(own, hovered, blockers);
  for (let index = 0; index < blockers.at.length; index += 1) {
    const [sent, end] = [across(blockers.at[index]), across(blockers.at[index] + blockers.took[index])];
    ctx.fillStyle = ink(index === held ? "held" : blockers.answered[index] ? "blocker" : "faint");
    ctx.fillRect(sent, blockers.connection[index] * LANE, Math.max(1, end - sent - 1), LANE - 1);
  }
  if (isHeat) heat(ctx, pane, width, across, from, to);
  else dots(ctx, pane, across, from, to);
  if (hovered !== null) {
    const answer = own.at[hovered] + own.took[hovered];
    const y = top(pane) + up(own.took[hovered]) * DOTS;
    ctx.strokeStyle = ink("held");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(across(own.at[hovered]), y);
    ctx.lineTo(across(answer), y);
    // Up to the blocker whose end was the answer.
    if (held !== null) ctx.lineTo(across(answer), 0);
    ctx.stroke();
  }
  if (selection) {
    ctx.fillStyle = ink("select");
    ctx.fillRect(across(Math.min(...selection)), 0, Math.abs(across(selection[1]) - across(selection[0])), height);
  }
  ctx.restore();
}

function dots(ctx: CanvasRenderingContext2D, pane: Pane, across: (time: number) => number, from: number, to: number): void {
  const { height, grades } = pane;
  const { at } = pane.probes;
  const { first, count } = within(at, from, to);
  const base = top(pane);
  // One colour at a time: changing it for each dot costs most of the time.
  GRADES.forEach((word, number) => {
    ctx.fillStyle = ink(word);
    for (let index = first; index < first + count; index += 1) {
      if (grades[index] === number) ctx.fillRect(across(at[index]) - 1, base + height[index] - 1, 2.5, 2.5);
    }
  });
  ctx.strokeStyle = ink("lost");
  ctx.lineWidth = 1;
  for (let index = first; index < first + count; index += 1) {
    if (grades[index] === GRADES.length) ctx.strokeRect(across(at[index]) - 1.5, base + height[index] - 1.5, 3, 3);
  }
}

/** A heat map, for dots that would cover one another: the number of dots in each square. */
function heat(ctx: CanvasRenderingContext2D, pane: Pane, width: number, across: (time: number) => number, from: number, to: number): void {
  const SIZE = 4;
  const { at, took } = pane.probes;
  const { first, count } = within(at, from, to);
  const [columns, rows] = [Math.ceil(width / SIZE), Math.ceil(DOTS / SIZE) + 1];
  const counts = new Uint32Array(columns * rows);
  let most = 1;
  for (let index = first; index < first + count; index += 1) {
    const square = Math.floor((up(took[index]) * DOTS) / SIZE) * columns + Math.floor(across(at[index]) / SIZE);
    most = Math.max(most, (counts[square] += 1));
  }
  ctx.fillStyle = ink("blocker");
  const base = top(pane);
  for (let square = 0; square < counts.length; square += 1) {
    if (counts[square] === 0) continue;
    ctx.globalAlpha = 0.15 + 0.85 * (Math.log(counts[square] + 1) / Math.log(most + 1));
    ctx.fillRect((square % columns) * SIZE, base + Math.floor(square / columns) * SIZE, SIZE, SIZE);
  }
  ctx.globalAlpha = 1;
}

function axes(ctx: CanvasRenderingContext2D, pane: Pane, width: number, across: (time: number) => number, from: number, to: number): void {
  const base = top(pane);
  ctx.font = "11px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  for (const ms of [0.1, 1, 10, 100, 1000]) {
    const y = base + up(ms) * DOTS;
    ctx.fillStyle = ink("quiet");
    ctx.fillText(ms >= 1000 ? "1 s" : `${ms} ms`, LEFT - 6, y);
    ctx.fillStyle = ink(ms >= 100 ? "limit" : "grid");
    ctx.fillRect(LEFT, y, width - LEFT - RIGHT, 1);
  }
  ctx.fillStyle = ink("quiet");
  ctx.fillText("blockers", LEFT - 6, Math.max(6, (pane.lanes * LANE) / 2));
  ctx.textAlign = "center";
  const rough = (to - from) / Math.max(2, (width - LEFT - RIGHT) / 90);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    ctx.fillRect(across(time), base + DOTS, 1, 4);
    ctx.textAlign = across(time) > width - 40 ? "right" : "center";
    ctx.fillText(`${Number(time.toPrecision(6))} ms`, across(time), base + DOTS + 14);
  }
}
