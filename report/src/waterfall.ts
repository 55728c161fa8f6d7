// Waterfalls: requests sent at one instant, as a network panel draws them, and what one loop would give.

import type { Page, Waterfall } from "./data";
import { h, source, svg } from "./dom";
import { amount, csv } from "./format";
import { sheet } from "./sheet";
import type { State } from "./state";
import { type Phase, longest, phases } from "./tabs";
import { type Act, zoom } from "./zoom";

const [LABEL, ROW, WIDTH] = [60, 20, 560];
/** What the bars mean, in words. */
const MEANINGS: [Phase["name"] | "fifo", string][] = [
  ["queued", "queued: sent, but not yet read by the server"],
  ["waiting", "waiting"],
  ["working", "working"],
  ["fifo", "when a single event loop, which serves one after another, would be done"],
];

/** The waterfalls of the chosen servers, side by side on one scale. */
export function waterfalls(page: Page, state: State, command: string): { element: HTMLElement; zoom: (act: Act) => void } | null {
  const all = page.moments.waterfalls;
  if (all.length === 0) return null;
  const stack = h("div", { class: "falls" });
  const isKnown = (name: string) => name !== "queued" || all.some((fall) => fall.read_ms !== undefined);
  const legend = h("ul", { class: "legend" }, ...MEANINGS.filter(([name]) => isKnown(name)).map(([name, words]) => h("li", {}, h("span", { class: `swatch ${name}` }), words)));
  let figures: Figure[] = [];
  let [isInSight, isLate, isAsked] = [false, false, false];

  const whole = (): [number, number] => [0, longest(figures.map(({ fall }) => fall))];
  const draw = () => {
    const chosen = state.view.servers.flatMap((name) => all.filter((fall) => fall.server === name));
    figures = chosen.map((fall) => figure(fall, command));
    stack.replaceChildren(...(figures.length > 0 ? figures.map(({ element }) => element) : [h("p", {}, "Tick a server above to see its tabs.")]));
    stretch();
  };
  const stretch = () => {
    isLate = false;
    const axis = state.view.zoom ?? whole();
    figures.forEach(({ fall, drawing }, number) => bars(drawing, fall, number, axis));
  };
  // Once a frame at most, and once they are in sight: whoever zooms looks at a figure further down that follows the same axis.
  const ask = () => {
    isLate = true;
    if (isAsked || !isInSight) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      if (isLate) stretch();
    });
  };
  new IntersectionObserver((entries) => {
    isInSight = entries[entries.length - 1].isIntersecting;
    if (isLate) ask();
  }).observe(stack);
  // What is printed need not have been in sight.
  addEventListener("beforeprint", () => isLate && stretch());
  state.on(["zoom"], ask);
  state.on(["servers", "theme"], draw);
  draw();
  return { element: h("div", {}, legend, stack), zoom: (act) => zoom(state, act, whole()) };
}

/** A waterfall on the page, whose drawing depends on the zoom. */
interface Figure {
  fall: Waterfall;
  element: HTMLElement;
  drawing: SVGSVGElement;
}

const heightOf = (fall: Waterfall): number => fall.finished_ms.length * ROW + 22;

/** The parts of each tab's time. */
const partsOf = ({ finished_ms: finished, length_ms: length, read_ms: read }: Waterfall): Phase[][] => finished.map((end, tab) => phases(end, length, read?.[tab]));

/** Draws the part of a waterfall between two instants. */
function bars(drawing: SVGSVGElement, fall: Waterfall, number: number, [from, to]: [number, number]): void {
  const { finished_ms: finished, length_ms: length } = fall;
  const split = partsOf(fall);
  const [room, scale] = [WIDTH - LABEL - 70, (WIDTH - LABEL - 70) / (to - from)];
  const across = (ms: number) => (ms - from) * scale;
  const height = heightOf(fall);
  const inside = svg("g", { "clip-path": `url(#fall-${number})` });
  drawing.replaceChildren(svg("clipPath", { id: `fall-${number}` }, svg("rect", { x: LABEL, y: 0, width: room, height })), inside);
  finished.forEach((end, tab) => {
    const y = tab * ROW + 2;
    const box = (name: string, start: number, ms: number) => svg("rect", { class: name, x: LABEL + across(start), y, width: Math.max(0.5, ms * scale), height: ROW - 6, "data-ms": ms.toFixed(1) });
    drawing.append(svg("text", { x: 0, y: y + 11 }, `tab ${tab + 1}`));
    let start = 0;
    for (const { name, ms } of split[tab]) {
      inside.append(box(name, start, ms));
      start += ms;
    }
    // One loop serves them one after another.
    const fifo = LABEL + across(length * (tab + 1));
    inside.append(svg("line", { class: "fifo", x1: fifo, x2: fifo, y1: y - 2, y2: y + ROW - 4 }));
    // The number stands behind the bar, or behind the mark where that is in its way.
    const [bar, words] = [LABEL + Math.min(room, Math.max(0, across(end))), 84];
    const x = fifo > bar - 2 && fifo < bar + words ? fifo : bar;
    drawing.append(svg("text", { class: "end", x: x + 6, y: y + 11 }, amount(end, "ms")));
  });
  drawing.append(svg("text", { x: LABEL, y: height - 4, class: "quiet" }, amount(from, "ms")), svg("text", { x: LABEL + room, y: height - 4, class: "quiet", "text-anchor": "end" }, amount(to, "ms")));
}

function figure(fall: Waterfall, command: string): Figure {
  const { finished_ms: finished, length_ms: length } = fall;
  const split = partsOf(fall);
  const height = heightOf(fall);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, "aria-hidden": "true" });
  const title = `${fall.server}: ${finished.length} tabs, ${amount(length, "ms")} of work each`;
  const heads = [...split[0].map(({ name }) => name), "done", "one after another"];
  const times = finished.map((end, tab) => [...split[tab].map(({ ms }) => ms), end, length * (tab + 1)]);
  const rows = times.map((own, tab) => h("tr", {}, h("th", { scope: "row" }, `tab ${tab + 1}`), ...own.map((ms) => h("td", { class: "number" }, amount(ms, "ms")))));
  const lines = times.map((own, tab) => [fall.server, String(tab + 1), ...own.map((ms) => ms.toFixed(2))]);
  const element = h(
    "figure",
    { class: "fall", "data-server": fall.server },
    h("figcaption", {}, title),
    drawing,
    h(
      "details",
      {},
      h("summary", {}, "Show as a table"),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, h("table", {}, h("thead", {}, h("tr", {}, ...["", ...heads].map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, ...rows))),
    ),
    source(command, `tabs-${finished.length}-${fall.server}`, {
      SVG: () => sheet(WIDTH, height, title, styled(drawing)),
      CSV: () => csv([["server", "tab", ...heads.map((head) => `${head} ms`)], ...lines]),
    }),
  );
  return { fall, element, drawing };
}

/** A copy of a drawing that needs no style sheet, since a file has none. */
function styled(drawing: SVGSVGElement): SVGElement {
  const copy = drawing.cloneNode(true) as SVGSVGElement;
  const shapes = (root: SVGElement) => [...root.querySelectorAll("rect, line, text")];
  const copies = shapes(copy);
  shapes(drawing).forEach((shape, at) => {
    const style = getComputedStyle(shape);
    for (const name of ["fill", "stroke", "stroke-width"]) copies[at].setAttribute(name, style.getPropertyValue(name));
  });
  return svg("g", {}, ...copy.childNodes);
}
