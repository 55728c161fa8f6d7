// A figure as SVG, to be kept.

import { ink, styleOf } from "./colors";
import { svg } from "./dom";
import { BOUND, type Plot, areTight, besideMarks, hasBounds, label, parts, places, range, reach, steps } from "./plot";

const [WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM] = [900, 440, 80, 40, 30, 50];
const [SIZE, NAME, SAMPLE] = [12, 16, 34];
/** The width of a letter at most, on average: a file is read where nothing is known of its fonts. */
const LETTER = 7;

const width = (words: string): number => words.length * LETTER;

/** The figure with the servers that are chosen, or with all if none is. */
export function drawing(figure: Plot, chosen: string[]): string {
  const named = chosen.length > 0 ? chosen : [...new Set(figure.series.map((line) => line.server))];
  const lines = figure.series.filter((line) => named.includes(line.server));
  const [low, high] = range(figure);
  const ticks = figure.x.ticks;
  const [first, last] = reach(figure);
  const end = WIDTH - RIGHT;
  // One place alone stands in the middle.
  const across = (x: number) => (last > first ? LEFT + ((x - first) / (last - first)) * (end - LEFT) : (LEFT + end) / 2);
  const share = (y: number) => (figure.y.is_log ? Math.log(Math.max(y, low) / low) / Math.log(high / low) : (y - low) / (high - low));
  const isSlanted = areTight(ticks.map(([at, word]) => ({ at: across(at), width: width(word) })));
  const bottom = BOTTOM + (isSlanted ? 0.6 * Math.max(...ticks.map(([, word]) => width(word))) : 0);
  const floor = HEIGHT - BOTTOM;
  const up = (y: number) => floor - Math.min(1, Math.max(0, share(y))) * (floor - TOP);
  const text = (x: number, y: number, words: string, anchor = "start", more = {}) => svg("text", { x, y, "text-anchor": anchor, "font-size": SIZE, "font-family": "sans-serif", fill: ink("text"), ...more }, words);
  const rule = (x1: number, y1: number, x2: number, y2: number, dash = "") => svg("line", { x1, y1, x2, y2, stroke: ink(dash ? "limit" : "grid"), "stroke-dasharray": dash || undefined });

  // The names stand below, in as many columns as have room.
  const column = SAMPLE + 16 + Math.max(0, ...lines.map((line) => width(line.name)));
  const columns = Math.max(1, Math.floor((end - LEFT) / column));
  const rows = Math.ceil(lines.length / columns);
  const names = floor + bottom + 14;
  const isBounded = hasBounds(lines);
  const height = names + NAME * (rows + Number(isBounded));
  const wide = Math.max(WIDTH, LEFT + column, LEFT + width(figure.title), end + width(ticks.at(-1)?.[1] ?? "") / 2);
  const root = svg("svg", { viewBox: `0 0 ${wide} ${height}`, width: wide, height });
  root.append(svg("rect", { width: wide, height, fill: ink("page") }), text(LEFT, 22, figure.title));
  const levels = figure.y.is_log ? steps(low, high) : [0, 1, 2, 3, 4].map((step) => low + ((high - low) * step) / 4);
  for (const value of levels) root.append(rule(LEFT, up(value), end, up(value)), text(LEFT - 6, up(value) + 4, label(value, figure.y.unit), "end"));
  root.append(text(14, (TOP + floor) / 2, figure.y.label, "middle", { transform: `rotate(-90 14 ${(TOP + floor) / 2})` }));
  for (const [at, word] of ticks) {
    const [x, y] = [across(at), floor + 18];
    root.append(isSlanted ? text(x + 4, y - 4, word, "end", { transform: `rotate(-35 ${x + 4} ${y - 4})` }) : text(x, y, word, "middle"));
  }
  root.append(text((LEFT + end) / 2, floor + bottom - 10, figure.x.label, "middle"));
  for (const [limit, word] of figure.y.limits.filter(([limit]) => limit >= low && limit <= high)) {
    root.append(rule(LEFT, up(limit), end, up(limit), "4 4"), text(LEFT + 4, up(limit) - 3, word));
  }
  const beside = besideMarks(figure.x.marks.map(([at, word]) => ({ at: across(at), width: width(word) })), end);
  figure.x.marks.forEach(([at, word], number) => {
    const { isLeft, row } = beside[number];
    root.append(rule(across(at), TOP, across(at), floor, "2 4"), text(across(at) + (isLeft ? -3 : 3), TOP + 10 + 13 * row, word, isLeft ? "end" : "start"));
  });
  const all = places(figure);
  lines.forEach((line, number) => {
    const { color, dash } = styleOf(line.server, named, line.isOther) ?? { color: ink("limit"), dash: [] };
    const dashes = dash.join(" ") || undefined;
    for (const part of parts(line, all)) {
      const points = part.map(([x, y]) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`).join(" ");
      if (part.length > 1) root.append(svg("polyline", { points, fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dashes, "data-line": line.name }));
    }
    for (const [x, y, , , isBound] of line.points) {
      const [cx, cy] = [Number(across(x).toFixed(1)), Number(up(y).toFixed(1))];
      root.append(svg("circle", { cx, cy, r: 3, fill: isBound ? ink("page") : color, stroke: color, "stroke-width": 1.5, "data-line": line.name }));
      if (isBound) root.append(svg("path", { d: `M${cx} ${cy - 3}v-8m-3 3l3 -3l3 3`, fill: "none", stroke: color, "stroke-width": 1.5 }));
    }
    const [x, y] = [LEFT + (number % columns) * column, names + NAME * Math.floor(number / columns)];
    root.append(svg("line", { x1: x, x2: x + 26, y1: y, y2: y, stroke: color, "stroke-width": 3, "stroke-dasharray": dashes }), text(x + SAMPLE, y + 4, line.name));
  });
  if (isBounded) root.append(text(LEFT, names + NAME * rows + 4, BOUND));
  return new XMLSerializer().serializeToString(root);
}
