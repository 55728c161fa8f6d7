// A figure as SVG, to be kept.

import type { Figure } from "./data";
import { styleOf } from "./colors";
import { svg } from "./dom";
import { amount } from "./format";
import { powers, range, reach } from "./lines";

const [WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM] = [900, 440, 80, 40, 220, 50];

/** The figure with the servers that are chosen, or with all if none is. */
export function drawing(figure: Figure, chosen: string[]): string {
  const lines = figure.series.filter((line) => chosen.length === 0 || chosen.includes(line.name.replace(/ \([^)]*\)$/, "")));
  const [low, high] = range(figure);
  const ticks = figure.x.ticks;
  const [first, last] = reach(figure);
  const across = (x: number) => LEFT + ((x - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const share = (y: number) => (figure.y.is_log ? Math.log(Math.max(y, low) / low) / Math.log(high / low) : (y - low) / (high - low));
  const up = (y: number) => HEIGHT - BOTTOM - Math.min(1, Math.max(0, share(y))) * (HEIGHT - TOP - BOTTOM);
  const text = (x: number, y: number, words: string, anchor = "start") => svg("text", { x, y, "text-anchor": anchor, "font-size": 12, "font-family": "sans-serif", fill: "#222" }, words);
  const rule = (x1: number, y1: number, x2: number, y2: number, dash = "") => svg("line", { x1, y1, x2, y2, stroke: dash ? "#777" : "#ddd", "stroke-dasharray": dash || undefined });

  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT });
  root.append(svg("rect", { width: WIDTH, height: HEIGHT, fill: "#fff" }), text(LEFT, 22, figure.title));
  const steps = figure.y.is_log ? powers(low, high) : [0, 1, 2, 3, 4].map((step) => low + ((high - low) * step) / 4);
  for (const value of steps) root.append(rule(LEFT, up(value), WIDTH - RIGHT, up(value)), text(LEFT - 6, up(value) + 4, amount(value, figure.y.unit), "end"));
  for (const [at, word] of ticks) root.append(text(across(at), HEIGHT - BOTTOM + 18, word, "middle"));
  root.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, figure.x.label, "middle"));
  for (const [limit, word] of figure.y.limits.filter(([limit]) => limit >= low && limit <= high)) {
    root.append(rule(LEFT, up(limit), WIDTH - RIGHT, up(limit), "4 4"), text(LEFT + 4, up(limit) - 3, word));
  }
  figure.x.marks.forEach(([at, word], number) => {
    // Neighbours stand at two heights, since they may be close.
    const isLast = across(at) > WIDTH - RIGHT - 60;
    root.append(rule(across(at), TOP, across(at), HEIGHT - BOTTOM, "2 4"), text(across(at) + (isLast ? -3 : 3), TOP + 10 + 13 * (number % 2), word, isLast ? "end" : "start"));
  });
  lines.forEach((line, number) => {
    const style = styleOf(line.name.replace(/ \([^)]*\)$/, ""), chosen) ?? { color: "#777", dash: [] };
    const points = line.points.map(([x, y]) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`).join(" ");
    const dash = style.dash.join(" ") || undefined;
    root.append(svg("polyline", { points, fill: "none", stroke: style.color, "stroke-width": 2, "stroke-dasharray": dash }));
    const y = TOP + 16 * number;
    root.append(svg("line", { x1: WIDTH - RIGHT + 14, x2: WIDTH - RIGHT + 34, y1: y, y2: y, stroke: style.color, "stroke-width": 3, "stroke-dasharray": dash }), text(WIDTH - RIGHT + 40, y + 4, line.name));
  });
  return new XMLSerializer().serializeToString(root);
}
