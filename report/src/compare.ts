// Comparisons between two servers of the round, or between two rounds.

import type { Judged, Page, Value } from "./data";
import { choice, h } from "./dom";
import { number, significant, words } from "./format";
import type { State } from "./state";

/** Pairs of trials that are apart. */
export interface Apart {
  /** Pairs in which the second is larger. */
  above: number;
  /** Pairs in which it is smaller. */
  below: number;
  /** All pairs. */
  of: number;
}

/** The order of two values, where bounds leave no doubt. */
function order(a: Value, b: Value): number {
  const isOpen = (value: Value) => typeof value !== "number";
  const of = (value: Value) => number(value) ?? Number.POSITIVE_INFINITY;
  if (!isOpen(a) && !isOpen(b)) return Math.sign(of(b) - of(a));
  if (isOpen(a) && isOpen(b)) return 0;
  if (isOpen(b)) return of(a) <= of(b) ? 1 : 0;
  return of(b) <= of(a) ? -1 : 0;
}

/** Compares every trial of one with every trial of the other. */
export function apart(first: Value[], second: Value[]): Apart {
  const found = { above: 0, below: 0, of: first.length * second.length };
  for (const a of first) {
    for (const b of second) {
      const sign = order(a, b);
      if (sign > 0) found.above += 1;
      if (sign < 0) found.below += 1;
    }
  }
  return found;
}

/** The two-sided p-value of the rank-sum test without ties: the share of all arrangements that are at least as far from the middle. */
export function rankSum(statistic: number, first: number, second: number): number {
  // Ways to get each number of pairs (Mann and Whitney, 1947): the largest of all values belongs to one side or to the other.
  const known = new Map<string, number[]>();
  const ways = (m: number, n: number): number[] => {
    if (m === 0 || n === 0) return [1];
    const key = `${m},${n}`;
    const found = known.get(key);
    if (found) return found;
    const [with_, without] = [ways(m - 1, n), ways(m, n - 1)];
    const all = Array.from({ length: m * n + 1 }, (_, u) => (with_[u - n] ?? 0) + (without[u] ?? 0));
    known.set(key, all);
    return all;
  };
  const all = ways(first, second);
  const sum = all.reduce((a, b) => a + b, 0);
  const far = Math.min(statistic, first * second - statistic);
  const tail = all.slice(0, Math.floor(far) + 1).reduce((a, b) => a + b, 0);
  return Math.min(1, (2 * tail) / sum);
}

function median(values: Value[]): Value | null {
  const key = (value: Value) => number(value) ?? Number.MAX_VALUE;
  const sorted = [...values].sort((a, b) => key(a) - key(b));
  return sorted[(sorted.length - 1) >> 1] ?? null;
}

interface Line {
  metric: string;
  before: string;
  after: string;
  verdict: string;
  why: string;
  size: number;
}

/** Every metric that both servers have, the largest differences first. */
export function lines(page: Page, a: string, b: string): Line[] {
  const [first, second] = [page.values[a] ?? {}, page.values[b] ?? {}];
  const found: Line[] = [];
  page.metrics.forEach((metric, at) => {
    const [x, y] = [first[at], second[at]];
    const [before, after] = [x && median(x.values), y && median(y.values)];
    if (!x || !y || before === null || after === null || before === undefined || after === undefined) return;
    const pairs = apart(x.values, y.values);
    const most = Math.max(pairs.above, pairs.below);
    const ties = pairs.of - pairs.above - pairs.below;
    const p = rankSum(Math.min(pairs.above, pairs.below) + ties / 2, x.values.length, y.values.length);
    const noise = Math.max(x.noise ?? 1, y.noise ?? 1);
    const [low, high] = [number(before), number(after)];
    const ratio = low !== null && high !== null && low > 0 && high > 0 ? high / low : null;
    const size = ratio === null ? (most > 0 ? 1e6 : 0) : Math.abs(Math.log(ratio)) / Math.max(1e-3, Math.log(Math.max(noise, 1.001)));
    const isClaimed = low === null || high === null || Math.abs(high - low) >= metric.least;
    const differs = p < 0.05 && size > 1 && isClaimed;
    const isBetter = pairs.above > pairs.below === metric.is_more_better;
    const why = [
      `${most} of ${pairs.of} pairs of trials apart`,
      `p = ${p < 0.001 ? p.toExponential(0) : significant(p)}`,
      x.noise === undefined && y.noise === undefined ? null : `noise x ${significant(noise)}`,
      isClaimed ? null : `less than ${metric.least} ${metric.unit} is not claimed`,
    ];
    found.push({
      metric: metric.name,
      before: words(before, metric.unit),
      after: words(after, metric.unit),
      verdict: differs ? `${isBetter ? "better" : "worse"}${ratio === null ? "" : ` x ${significant(ratio)}`}` : "cannot be told apart",
      why: why.filter(Boolean).join("; "),
      size: differs ? size : 0,
    });
  });
  return found.sort((one, other) => other.size - one.size);
}

const KINDS = [false, false, true, true];

function table(caption: string, heads: [string, string], rows: { cells: string[]; isWord: boolean[] }[]): HTMLElement {
  const head = ["metric", ...heads, "verdict", "why"];
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", { class: "compare" }, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...head.map((word, at) => h("th", { scope: "col", class: at === 0 || KINDS[at - 1] ? "words" : "number" }, word)))), h("tbody", {}, ...rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.cells[0]), ...row.cells.slice(1).map((text, at) => h("td", { class: row.isWord[at] ? "words" : "number" }, text)))))),
  );
}

/** Two servers of the round against one another. */
export function servers(page: Page, state: State): HTMLElement {
  const names = page.order.map(([name]) => name).filter((name) => Object.keys(page.values[name] ?? {}).length > 0);
  const pair = (): [string, string] => {
    const [a, b] = state.view.pair ?? [];
    const usual = page.shown.filter((name) => names.includes(name));
    return [a && names.includes(a) ? a : (usual[0] ?? names[0]), b && names.includes(b) ? b : (usual[1] ?? names[1] ?? names[0])];
  };
  const body = h("div", { class: "result" });
  const pickers = h("div", { class: "controls" });
  const draw = () => {
    const [a, b] = pair();
    const options = names.map((name): [string, string] => [name, name]);
    pickers.replaceChildren(choice("first", options, a, (name) => state.set({ pair: [name, pair()[1]] })), choice("second", options, b, (name) => state.set({ pair: [pair()[0], name] })));
    const rows = lines(page, a, b).map((line) => ({ cells: [line.metric, line.before, line.after, line.verdict, line.why], isWord: KINDS }));
    body.replaceChildren(table(`${b} against ${a}: medians over trials, the largest differences first`, [a, b], rows));
  };
  state.on(["pair"], draw);
  draw();
  return h("div", {}, pickers, body, h("p", { class: "note" }, `${page.noise_note}. Each line is judged by itself; `, h("code", {}, "stallbench rank"), " corrects for how many there are."));
}

/** Two rounds against one another. */
export function rounds(page: Page): HTMLElement | null {
  const { beside } = page;
  if (!beside) return null;
  const cells = (line: Judged) => [`${line.server} ${line.metric}`, words(line.before, line.unit), words(line.after, line.unit), line.words, line.why];
  const sorted = [...beside.lines].sort((a, b) => Number(b.differs) - Number(a.differs) || b.size - a.size);
  const rows = sorted.map((line) => ({ cells: cells(line), isWord: KINDS }));
  return h("div", {}, table(`${beside.name} against ${page.name}: the largest changes first`, [page.name, beside.name], rows), h("ul", { class: "notes" }, ...beside.notes.map((note) => h("li", {}, note))));
}
