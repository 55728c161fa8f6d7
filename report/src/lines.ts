// Figures with a line for each server, drawn by uPlot.

import uPlot from "uplot";
import type { Figure, Page } from "./data";
import { h, source } from "./dom";
import { amount, csv } from "./format";
import { ink, sample, styleOf } from "./colors";
import { drawing } from "./drawing";
import { BOUND, INVALID, type Line, type Plot, areTight, besideMarks, groupsOf, hasBounds, hasInvalid, heapsOf, label, parts, places, plotOf, range, reach, said, steps } from "./plot";
import type { State } from "./state";

const [HEIGHT, LEFT, LETTERS] = [380, 70, "12px system-ui, sans-serif"];

/** The value of each line at each place, with a gap where there is none. A logarithm has no zero: what is below the axis stands on it. */
function columns(figure: Plot, low: number): uPlot.AlignedData {
  const all = places(figure);
  const line = (one: Line) => {
    const at = new Map(one.points.map((point) => [point[0], point[1]]));
    return all.map((place) => {
      const value = at.get(place);
      return value === undefined ? null : figure.y.is_log ? Math.max(value, low) : value;
    });
  };
  return [all, ...figure.series.map(line)] as uPlot.AlignedData;
}

/** The width of words on the page. */
function widths(words: string[], font: string): number[] {
  const ctx = document.createElement("canvas").getContext("2d");
  if (ctx) ctx.font = font;
  return words.map((word) => ctx?.measureText(word).width ?? 0);
}

/** A figure with its legend, its table, and its downloads. */
export function figure(one: Figure, page: Page, state: State, command: string): HTMLElement {
  const whole = plotOf(one, page);
  const canvas = h("div", { class: "chart", role: "img", "aria-label": `${one.title}: the table below holds the same numbers` });
  const tip = h("div", { class: "tip", hidden: true });
  const legend = h("ul", { class: "legend" });
  const bounds = h("p", { class: "note", hidden: true }, BOUND);
  let plot: uPlot | null = null;
  let drawn: Line[] = [];

  const style = (line: Line) => styleOf(line.server, state.view.servers, line.isOther);
  const draw = () => {
    plot?.destroy();
    const [low, high] = range(whole);
    // Lines in colour lie above the others.
    drawn = [...whole.series].sort((a, b) => Number(style(a) !== null) - Number(style(b) !== null));
    const series = drawn.map((line): uPlot.Series => {
      const own = style(line);
      return { label: line.name, stroke: own?.color ?? ink("faint"), width: own ? 2 : 1, dash: own?.dash, points: { show: false }, spanGaps: false };
    });
    const grid = { stroke: ink("grid"), width: 1 };
    const ticks = whole.x.ticks;
    const [first, last] = reach(whole);
    const margin = (last - first || 1) * 0.03;
    const width = Math.max(280, canvas.clientWidth);
    const scale = (width - LEFT) / (last - first + 2 * margin);
    const room = widths(ticks.map(([, word]) => word), LETTERS);
    const isSlanted = areTight(ticks.map(([at], number) => ({ at: at * scale, width: room[number] })));
    const below = isSlanted ? 20 + 0.72 * Math.max(...room) : 36;
    plot = new uPlot(
      {
        width,
        height: HEIGHT + below - 36,
        legend: { show: false },
        cursor: { focus: { prox: 24 }, drag: { x: false, y: false }, points: { size: 8 } },
        focus: { alpha: 0.35 },
        scales: { x: { time: false, range: [first - margin, last + margin] }, y: { distr: whole.y.is_log ? 3 : 1, range: [low, high] } },
        axes: [
          { stroke: ink("text"), font: LETTERS, grid: { show: false }, ticks: grid, splits: () => ticks.map(([at]) => at), values: () => ticks.map(([, word]) => word), rotate: isSlanted ? 45 : 0, label: whole.x.label, labelSize: 24, size: below, space: 10 },
          { stroke: ink("text"), grid, ticks: grid, ...(whole.y.is_log ? { splits: () => steps(low, high), filter: (_: uPlot, splits: number[]) => splits } : {}), values: (_, splits) => splits.map((value) => label(value, whole.y.unit)), label: whole.y.label, labelSize: 20, size: LEFT },
        ],
        series: [{}, ...series],
        hooks: {
          draw: [(self) => marks(self, whole), (self) => points(self, low)],
          setCursor: [(self) => point(self)],
        },
      },
      columns({ ...whole, series: drawn }, low),
      canvas,
    );
    legend.replaceChildren(...names());
    bounds.hidden = !hasBounds(whole.series.filter(style));
  };

  /** The lines in colour. Whoever freezes beside what the figure is about is told apart at once, in either round. */
  const names = () => {
    const { beside } = page;
    const hasOther = whole.series.some((line) => line.isOther);
    return [false, true].flatMap((isOther) => {
      const lines = whole.series.filter((line) => line.isOther === isOther && style(line));
      const groups = groupsOf(whole.name, isOther ? (beside?.freezing ?? []) : page.freezing);
      const known = new Set(groups.flatMap(([, servers]) => servers));
      const rest: [string, string[]] = ["", lines.map((line) => line.server).filter((server) => !known.has(server))];
      return [...groups, rest].flatMap(([group, servers]) => {
        const items = lines.filter((line) => servers.includes(line.server)).map((line) => h("li", {}, h("span", { class: "swatch", style: sample(style(line)) }), line.name));
        const round = hasOther ? (isOther ? beside?.name : page.name) : "";
        const head = [round, group].filter(Boolean).join(", ");
        return head && items.length > 0 ? [h("li", { class: "group" }, `${head}:`), ...items] : items;
      });
    });
  };

  /** A marker at each point in colour, an open one with an arrow at a lower bound, and one where a point has no neighbour to be joined with. */
  const points = (self: uPlot, low: number) => {
    const { ctx } = self;
    const scale = devicePixelRatio;
    const all = places(whole);
    ctx.save();
    ctx.setLineDash([]);
    ctx.lineWidth = 1.5 * scale;
    drawn.forEach((line, number) => {
      const own = style(line);
      ctx.globalAlpha = (self.series[number + 1] as { alpha?: number }).alpha ?? 1;
      ctx.strokeStyle = own?.color ?? ink("limit");
      for (const part of parts(line, all)) {
        if (!own && part.length > 1) continue;
        for (const [place, value, , , isBound] of part) {
          const [x, y] = [self.valToPos(place, "x", true), self.valToPos(whole.y.is_log ? Math.max(value, low) : value, "y", true)];
          ctx.fillStyle = isBound ? ink("page") : ctx.strokeStyle;
          ctx.beginPath();
          ctx.arc(x, y, 3 * scale, 0, 2 * Math.PI);
          ctx.fill();
          ctx.stroke();
          if (isBound && own) arrow(ctx, x, y - 3 * scale, scale);
        }
      }
    });
    ctx.restore();
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
    const [, , from, to] = found;
    const interval = typeof from === "number" && typeof to === "number" ? ` [${amount(from, whole.y.unit)}, ${amount(to, whole.y.unit)}]` : "";
    const counted = hasInvalid(found) ? ` (${found[7]} of ${found[8]} trials valid)` : "";
    tip.textContent = `${line.name}, ${word}: ${said(found, whole.y.unit)}${interval}${counted}`;
    tip.style.left = `${Math.min(left + 80, canvas.clientWidth - 180)}px`;
    tip.style.top = `${top}px`;
  };

  const element = h(
    "figure",
    { id: `figure-${one.name}`, class: "lines" },
    h("figcaption", {}, one.title),
    h("div", { class: "stage" }, canvas, tip),
    legend,
    bounds,
    whole.instead ? h("p", { class: "note apart" }, `${page.beside?.name} is not drawn here, since it measured something else: ${whole.instead}.`) : null,
    table(whole, state),
    source(command, one.name, { SVG: () => drawing(whole, state.view.servers), CSV: () => rows(whole) }),
  );
  let isNear = false;
  const show = () => {
    if (isNear) return;
    isNear = true;
    near.disconnect();
    draw();
    element.dataset.drawn = "yes";
    let width = canvas.clientWidth;
    new ResizeObserver(() => {
      if (canvas.clientWidth === width) return;
      width = canvas.clientWidth;
      draw();
    }).observe(canvas);
  };
  // A figure is drawn when it comes near the screen, and what is printed need not have been there.
  const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && show(), { rootMargin: "300px" });
  near.observe(element);
  addEventListener("beforeprint", show);
  state.on(["servers", "theme"], () => isNear && draw());
  return element;
}

/** Limits across, and marks between the places. */
function marks(self: uPlot, figure: Plot): void {
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
  const at = figure.x.marks.map(([mark, word]) => ({ at: self.valToPos(mark, "x", true), width: ctx.measureText(word).width }));
  besideMarks(at, bbox.left + bbox.width).forEach(({ isLeft, row }, number) => {
    const x = at[number].at;
    stroke(ctx, [x, bbox.top], [x, bbox.top + bbox.height]);
    ctx.textAlign = isLeft ? "right" : "left";
    ctx.fillText(figure.x.marks[number][1], x + (isLeft ? -3 : 3) * scale, bbox.top + (14 + 13 * row) * scale);
  });
  ctx.restore();
}

/** An arrow upwards from a marker. */
function arrow(ctx: CanvasRenderingContext2D, x: number, y: number, scale: number): void {
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(x, y - 8 * scale);
  ctx.moveTo(x - 3 * scale, y - 5 * scale);
  ctx.lineTo(x, y - 8 * scale);
  ctx.lineTo(x + 3 * scale, y - 5 * scale);
  ctx.stroke();
}

function stroke(ctx: CanvasRenderingContext2D, [x0, y0]: [number, number], [x1, y1]: [number, number]): void {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}

function shownAt(line: Line, place: number, unit: string): string {
  const point = line.points.find((one) => one[0] === place);
  return point ? said(point, unit) : "–";
}

/** The id of the element that holds the numbers of a figure. */
export const valuesOf = (name: string): string => `values-${name}`;

/** The same numbers as a table, filled in when it is opened. The servers that are chosen come first. */
function table(figure: Plot, state: State): HTMLElement {
  const body = h("tbody");
  const fill = () => {
    const first = new Set(state.view.servers);
    const lines = [...figure.series].sort((a, b) => Number(first.has(b.server)) - Number(first.has(a.server)));
    body.replaceChildren(
      ...lines.map((line) => h("tr", {}, h("th", { scope: "row" }, line.name), ...figure.x.ticks.map(([at]) => h("td", { class: "number" }, shownAt(line, at, figure.y.unit))))),
    );
  };
  const isMarked = figure.series.some((line) => line.points.some(hasInvalid));
  const details = h(
    "details",
    {
      id: valuesOf(figure.name),
      ontoggle: fill,
    },
    h("summary", {}, "Show as a table"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": figure.title },
      h("table", {}, h("caption", {}, `${figure.y.label} by ${figure.x.label || "what is measured"}`), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "server"), ...figure.x.ticks.map(([, word]) => h("th", { scope: "col", class: "number" }, word)))), body),
    ),
    isMarked ? h("p", { class: "note" }, INVALID) : null,
  );
  state.on(["servers"], () => details.open && fill());
  return details;
}

/** All points as CSV, one a line. A share is held as a part of one. */
function rows(figure: Plot): string {
  const word = new Map(figure.x.ticks);
  const written = (value?: number | null) => (typeof value !== "number" ? "" : String(figure.y.unit === "%" ? Number((value * 100).toPrecision(6)) : value));
  const all = figure.series.flatMap((line) =>
    line.points.map((point) => {
      const [x, y, low, high, isBound, , , valid, all] = point;
      const heaps = heapsOf(point)?.map(written).join(" or ") ?? "";
      return [line.name, word.get(x) ?? String(x), written(y), written(low), written(high), isBound ? "at least" : "", heaps, hasInvalid(point) ? `${valid} of ${all}` : ""];
    }),
  );
  return csv([["server", figure.x.label, `${figure.y.label} (${figure.y.unit})`, "low", "high", "bound", "two heaps", "valid trials"], ...all]);
}
