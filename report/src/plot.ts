// What the drawing of a figure on the page and in a file have in common: its lines, its axes, and where words have room.

import type { Figure, Freezing, Page, Point, Series } from "./data";
import { amount } from "./format";

/** A line of the round of the page, or of the one beside it. */
export interface Line extends Series {
  server: string;
  isOther: boolean;
}

/** A figure with the lines of both rounds. */
export interface Plot extends Figure {
  series: Line[];
  /** What the other round measured instead, if its figure of this name is about something else. */
  instead: string | null;
}

/** What an open marker means. */
export const BOUND = "An open marker with an arrow is a lower bound: the true value is larger.";

/** What the mark of a number means of which some trials are invalid. */
export const INVALID = "*: some trials are invalid, and the number rests on the others.";

/** A figure of the page, with the lines of the round beside it if there is one that measured the same: a title names all that a figure is about. */
export function plotOf(figure: Figure, page: Page): Plot {
  const { beside } = page;
  const own = figure.series.map((line) => ({ ...line, server: line.name, isOther: false }));
  const named = beside?.figures.find((one) => one.name === figure.name);
  const theirs = named?.title === figure.title ? named : undefined;
  // Places are numbered in each round by itself: a quick one has fewer. Their words say which are the same; one that has no word stands where it is.
  const here = new Map(figure.x.ticks.map(([place, word]) => [word, place]));
  const words = new Map(theirs?.x.ticks);
  const moved = (points: Point[]): Point[] =>
    points.flatMap((point) => {
      const word = words.get(point[0]);
      const place = word === undefined ? point[0] : here.get(word);
      return place === undefined ? [] : [[place, ...point.slice(1)] as unknown as Point];
    });
  const others = (theirs?.series ?? []).map((line) => ({ ...line, points: moved(line.points), name: `${line.name} (${beside?.name})`, server: line.name, isOther: true }));
  return { ...figure, series: [...own, ...others], instead: named && !theirs ? named.title : null };
}

/** Who freezes beside the kind of slow request that a figure is about, if it is about one. */
export function groupsOf(figure: string, freezing: Freezing[]): Freezing["groups"] {
  const kind = figure.replace(/^(frozen|percentiles)-/, "").replace(/-\d+$/, "");
  return freezing.find((one) => one.kind === kind)?.groups ?? [];
}

/** A point in words: what is known, or both heaps where no trial was between them; with a mark where some trials are invalid. */
export function said(point: Point, unit: string): string {
  const [, y, , , isBound] = point;
  const heaps = heapsOf(point);
  const words = heaps ? heaps.map((value) => amount(value, unit)).join(" or ") : `${isBound ? ">= " : ""}${amount(y, unit)}`;
  return `${words}${hasInvalid(point) ? "*" : ""}`;
}

/** The middles of two heaps, if the trials fall into two. */
export const heapsOf = ([, , , , , heap, other]: Point): [number, number] | null => (typeof heap === "number" && typeof other === "number" ? [heap, other] : null);

/** Returns whether some trials of a point are invalid. */
export const hasInvalid = ([, , , , , , , valid, all]: Point): boolean => valid !== undefined && all !== undefined && valid < all;

/** Returns whether lower bounds are among the points. */
export const hasBounds = (lines: Series[]): boolean => lines.some((line) => line.points.some((point) => point[4]));

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

/** The labels of a logarithmic axis: its powers of ten, and two between them where there are few. */
export function steps(low: number, high: number): number[] {
  const first = Math.round(Math.log10(low));
  const powers = Array.from({ length: Math.round(Math.log10(high)) - first + 1 }, (_, step) => 10 ** (first + step));
  if (powers.length > 3) return powers;
  return powers.flatMap((power) => [power, 2 * power, 5 * power]).filter((value) => value <= high * 1.001);
}

/** A label of the vertical axis. */
export const label = (value: number, unit: string): string => amount(value, unit).replace(/\.0+(?=\D|$)/, "");

/** Every place at which something was measured. */
export function places(figure: Figure): number[] {
  const all = [...figure.x.ticks.map(([at]) => at), ...figure.series.flatMap((line) => line.points.map((point) => point[0]))];
  return [...new Set(all)].sort((a, b) => a - b);
}

/** The parts of a line without a gap: between two of its points there is no place at which it has none. */
export function parts(line: Series, all: number[]): Point[][] {
  const order = new Map(all.map((place, at) => [place, at]));
  const found: Point[][] = [];
  let last = Number.NaN;
  for (const point of line.points) {
    const at = order.get(point[0]) ?? Number.NaN;
    if (at === last + 1) found[found.length - 1].push(point);
    else found.push([point]);
    last = at;
  }
  return found;
}

/** Returns whether words that are centred at these places overlap. */
export function areTight(words: { at: number; width: number }[]): boolean {
  return words.some((one, number) => number > 0 && one.at - words[number - 1].at < (one.width + words[number - 1].width) / 2 + 6);
}

/** Where the words of marks stand: to the right of their mark or, before the end, to its left; each in the first row in which it has room. */
export function besideMarks(marks: { at: number; width: number }[], end: number): { isLeft: boolean; row: number }[] {
  const rows: [number, number][][] = [];
  return marks.map(({ at, width }) => {
    const isLeft = at + width + 3 > end;
    const [from, to] = isLeft ? [at - width - 3, at] : [at, at + width + 3];
    const free = rows.findIndex((row) => row.every(([start, stop]) => to < start || from > stop));
    const row = free >= 0 ? free : rows.push([]) - 1;
    rows[row].push([from, to]);
    return { isLeft, row };
  });
}
