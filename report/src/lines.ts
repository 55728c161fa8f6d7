// Figures with a line for each server, drawn by uPlot.

import uPlot from "uplot";
import type { Figure, Page, Series } from "./data";
import { h, source } from "./dom";
import { amount, csv } from "./format";
import { ink, sample, styleOf } from "./colors";
import { drawing } from "./drawing";
import type { State } from "./state";

const HEIGHT = 380;

/** The range of the vertical axis: whole powers of ten around all numbers, or from zero on. */
export function range(figure: Figure): [number, number] {
  const values = figure.series.flatMap((line) => line.points.map((point) => point[1]));
  if (figure.y.is_log) {
    const above = values.filter((value) => value > 0);
    if (above.length === 0) return [0.1, 1];
    const low = 10 ** Math.floor(Math.log10(Math.max(1e-3, Math.min(...above))));
    const high = 10 ** Math.ceil(Math.log10(Math.max(...above)));
    return [low, high > low ? high : low * 10];
  }
  if (figure.y.unit === "%") return [0, 1.05];
  return [0, Math.max(1, ...values) * 1.1];
}

/** The range of the horizontal axis: its ticks, and the marks beside them. */
export function reach(figure: Figure): [number, number] {
  const at = [...figure.x.ticks, ...figure.x.marks].map(([place]) => place);
  return at.length > 0 ? [Math.min(...at), Math.max(...at)] : [0, 1];
}

/** The powers of ten of a range. */
export function powers(low: number, high: number): number[] {
  const first = Math.round(Math.log10(low));
  return Array.from({ length: Math.round(Math.log10(high)) - first + 1 }, (_, step) => 10 ** (first + step));
}

/** The value of each line at each place, with a gap where there is none. A logarithm has no zero: what is below the axis stands on it. */
function columns(figure: Figure, low: number): uPlot.AlignedData {
  const places = [...new Set([...figure.x.ticks.map(([at]) => at), ...figure.series.flatMap((line) => line.points.map((point) => point[0]))])].sort((a, b) => a - b);
  const line = (one: Series) => {
    const at = new Map(one.points.map((point) => [point[0], point[1]]));
    return places.map((place) => {
      const value = at.get(place);
      return value === undefined ? null : figure.y.is_log ? Math.max(value, low) : value;
    });
  };
  return [places, ...figure.series.map(line)] as uPlot.AlignedData;
}

/** A figure with its legend, its table, and its downloads. `other` are the lines of another round. */
export function figure(one: Figure, page: Page, state: State, command: string, other?: Figure): HTMLElement {
  const whole: Figure = other ? { ...one, series: [...one.series, ...other.series.map((line) => ({ ...line, name: `${line.name} (${page.beside?.name})` }))] } : one;
  const canvas = h("div", { class: "chart", role: "img", "aria-label": `${one.title}: the table below holds the same numbers` });
  const tip = h("div", { class: "tip", hidden: true });
  const legend = h("ul", { class: "legend" });
  const groups = new Map(page.order);
  const base = (name: string) => name.replace(/ \([^)]*\)$/, "");
  let plot: uPlot | null = null;
  let drawn: Series[] = [];

  const chosen = () => state.view.servers;
  const draw = () => {
    plot?.destroy();
    const [low, high] = range(whole);
    const style = (name: string) => styleOf(base(name), chosen());
    // Lines in colour lie above the others.
    const lines = [...whole.series].sort((a, b) => Number(style(a.name) !== null) - Number(style(b.name) !== null));
    drawn = lines;
    const isOther = (name: string) => other !== undefined && name.endsWith(")");
    const series = lines.map((line): uPlot.Series => {
      const own = style(line.name);
      const dash = isOther(line.name) ? [4, 4] : own?.dash;
      return { label: line.name, stroke: own?.color ?? ink("faint"), width: own ? 2 : 1, dash, points: { show: own !== null, size: 6 }, spanGaps: false };
    });
    const grid = { stroke: ink("grid"), width: 1 };
    const ticks = whole.x.ticks;
    const [first, last] = reach(whole);
    const margin = (last - first || 1) * 0.03;
    plot = new uPlot(
      {
        width: Math.max(280, canvas.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { focus: { prox: 24 }, drag: { x: false, y: false }, points: { size: 8 } },
        focus: { alpha: 0.35 },
        scales: { x: { time: false, range: [first - margin, last + margin] }, y: { distr: whole.y.is_log ? 3 : 1, range: [low, high] } },
        axes: [
          { stroke: ink("text"), grid: { show: false }, ticks: grid, splits: () => ticks.map(([at]) => at), values: () => ticks.map(([, word]) => word), label: whole.x.label, labelSize: 24, size: 36, space: 10 },
          { stroke: ink("text"), grid, ticks: grid, ...(whole.y.is_log ? { splits: () => powers(low, high) } : {}), values: (_, splits) => splits.map((value) => amount(value, whole.y.unit).replace(/\.0+(?=\D|$)/, "")), label: whole.y.label, labelSize: 20, size: 70 },
        ],
        series: [{}, ...series],
        hooks: {
          draw: [(self) => marks(self, whole)],
          setCursor: [(self) => point(self)],
        },
      },
      columns({ ...whole, series: lines }, low),
      canvas,
    );
    // Whoever freezes is told apart at once.
    legend.replaceChildren(
      ...[...new Set(groups.values()), undefined].flatMap((group) => {
        const items = whole.series
          .filter((line) => style(line.name) && groups.get(base(line.name)) === group)
          .map((line) => h("li", {}, h("span", { class: "swatch", style: sample(style(line.name)) }), line.name));
        return group && items.length > 0 ? [h("li", { class: "group" }, `${group}:`), ...items] : items;
      }),
    );
  };

  const point = (self: uPlot) => {
    const { idx, left, top } = self.cursor;
    const at = self.series.findIndex((series, number) => number > 0 && (series as { _focus?: boolean | null })._focus);
    const line = at > 0 ? drawn[at - 1] : undefined;
    const place = idx === null || idx === undefined ? undefined : self.data[0][idx];
    const found = line?.points.find((one) => one[0] === place);
    tip.hidden = !found;
    if (!line || !found || left === undefined || top === undefined) return;
    const word = whole.x.ticks.find(([tick]) => tick === place)?.[1] ?? "";
    const interval = found.length === 4 ? ` [${amount(found[2], whole.y.unit)}, ${amount(found[3], whole.y.unit)}]` : "";
    tip.textContent = `${line.name}, ${word}: ${found[4] ? ">= " : ""}${amount(found[1], whole.y.unit)}${interval}`;
    tip.style.left = `${Math.min(left + 80, canvas.clientWidth - 180)}px`;
    tip.style.top = `${top}px`;
  };

  const element = h(
    "figure",
    { id: `figure-${one.name}`, class: "lines" },
    h("figcaption", {}, one.title),
    h("div", { class: "stage" }, canvas, tip),
    legend,
    table(whole, () => state.view.servers),
    source(command, one.name, { SVG: () => drawing(whole, chosen()), CSV: () => points(whole) }),
  );
  // A figure is drawn when it comes near the screen.
  let isNear = false;
  const near = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting) || isNear) return;
      isNear = true;
      near.disconnect();
      draw();
      element.dataset.drawn = "yes";
      let width = canvas.clientWidth;
      new ResizeObserver(() => {
        if (canvas.clientWidth !== width) {
          width = canvas.clientWidth;
          plot?.setSize({ width: Math.max(280, width), height: HEIGHT });
        }
      }).observe(canvas);
    },
    { rootMargin: "300px" },
  );
  near.observe(element);
  state.on(["servers", "theme"], () => isNear && draw());
  return element;
}

/** Limits across, and marks between the places. */
function marks(self: uPlot, figure: Figure): void {
  const { ctx, bbox } = self;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ink("limit");
  ctx.fillStyle = ink("quiet");
  ctx.setLineDash([4 * scale, 4 * scale]);
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  ctx.textBaseline = "bottom";
  for (const [limit, word] of figure.y.limits) {
    const at = self.valToPos(limit, "y", true);
    if (at < bbox.top || at > bbox.top + bbox.height) continue;
    stroke(ctx, [bbox.left, at], [bbox.left + bbox.width, at]);
    ctx.textAlign = "right";
    ctx.fillText(word, bbox.left + bbox.width - 4 * scale, at - 2 * scale);
  }
  for (const [number, [mark, word]] of figure.x.marks.entries()) {
    const at = self.valToPos(mark, "x", true);
    stroke(ctx, [at, bbox.top], [at, bbox.top + bbox.height]);
    const isLast = at > bbox.left + 0.9 * bbox.width;
    ctx.textAlign = isLast ? "right" : "left";
    // Neighbours stand at two heights, since they may be close.
    ctx.fillText(word, at + (isLast ? -3 : 3) * scale, bbox.top + (14 + 13 * (number % 2)) * scale);
  }
  ctx.restore();
}

function stroke(ctx: CanvasRenderingContext2D, [x0, y0]: [number, number], [x1, y1]: [number, number]): void {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}

function shownAt(line: Series, place: number, unit: string): string {
  const point = line.points.find((one) => one[0] === place);
  if (!point) return "–";
  return `${point[4] ? ">= " : ""}${amount(point[1], unit)}`;
}

/** The same numbers as a table, filled in when it is opened. */
function table(figure: Figure, chosen: () => string[]): HTMLElement {
  const body = h("tbody");
  const details = h(
    "details",
    {
      ontoggle: () => {
        const first = new Set(chosen());
        const lines = [...figure.series].sort((a, b) => Number(first.has(b.name)) - Number(first.has(a.name)));
        body.replaceChildren(
          ...lines.map((line) => h("tr", {}, h("th", { scope: "row" }, line.name), ...figure.x.ticks.map(([at]) => h("td", { class: "number" }, shownAt(line, at, figure.y.unit))))),
        );
      },
    },
    h("summary", {}, "Show as a table"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": figure.title },
      h("table", {}, h("caption", {}, `${figure.y.label} by ${figure.x.label || "what is measured"}`), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "server"), ...figure.x.ticks.map(([, word]) => h("th", { scope: "col", class: "number" }, word)))), body),
    ),
  );
  return details;
}

/** All points as CSV, one a line. */
function points(figure: Figure): string {
  const word = new Map(figure.x.ticks);
  const rows = figure.series.flatMap((line) =>
    line.points.map(([x, y, low, high, bound]) => [line.name, word.get(x) ?? String(x), String(y), low === undefined ? "" : String(low), high === undefined ? "" : String(high), bound ? "at least" : ""]),
  );
  return csv([["server", figure.x.label, `${figure.y.label} (${figure.y.unit})`, "low", "high", "bound"], ...rows]);
}
