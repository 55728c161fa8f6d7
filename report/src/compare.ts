// Comparisons between two servers of the round, or between two rounds.

import type { Judged, Page, Value } from "./data";
import { choice, h } from "./dom";
import { number, significant, words } from "./format";
import type { State } from "./state";
import { apart, rankSum, summary } from "./stats";

interface Line {
  metric: string;
  before: string;
  after: string;
  verdict: string;
  why: string;
  size: number;
}

/** The median, or both heaps where no trial was between them. */
function shown({ median, heaps }: { median: Value; heaps: [number, number] | null }, unit: string): string {
  return (heaps ?? [median]).map((value) => words(value, unit)).join(" or ");
}

/** Every metric that both servers have, the largest differences first. */
export function lines(page: Page, a: string, b: string): Line[] {
  const [first, second] = [page.values[a] ?? {}, page.values[b] ?? {}];
  const found: Line[] = [];
  page.metrics.forEach((metric, at) => {
    const [x, y] = [first[at], second[at]];
    if (!x || !y) return;
    // Thresholds have no noise, and are steps of a ladder.
    const [before, after] = [x, y].map((cell) => summary(cell.values, cell.noise === undefined));
    if (!before || !after) return;
    const pairs = apart(x.values, y.values);
    const most = Math.max(pairs.above, pairs.below);
    const p = rankSum(x.values, y.values);
    const noise = Math.max(x.noise ?? 1, y.noise ?? 1);
    const [low, high] = [number(before.median), number(after.median)];
    const ratio = low !== null && high !== null && low > 0 && high > 0 ? high / low : null;
    const size = ratio === null ? (most > 0 ? 1e6 : 0) : Math.abs(Math.log(ratio)) / Math.max(1e-3, Math.log(Math.max(noise, 1.001)));
    const isClaimed = low === null || high === null || Math.abs(high - low) >= metric.least;
    const differs = p < 0.05 && size > 1 && isClaimed;
    const isBetter = pairs.above > pairs.below === metric.is_more_better;
    const why = [
      `${most} of ${pairs.of} pairs of trials apart`,
      `p = ${p.toFixed(4)}`,
      x.noise === undefined && y.noise === undefined ? null : `noise x ${significant(noise)}`,
      isClaimed ? null : `less than ${metric.least} ${metric.unit} is not claimed`,
    ];
    found.push({
      metric: metric.name,
      before: shown(before, metric.unit),
      after: shown(after, metric.unit),
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
